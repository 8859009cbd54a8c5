-- Unique keys (also indexes without a constraint), foreign keys, and checks of the tables with the oids $1.
SELECT
    i.indrelid AS table_oid,
    CASE WHEN i.indisprimary THEN 'primary' ELSE 'unique' END AS kind,
    (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (number, place)
    INNER JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.number
    WHERE k.place <= i.indnkeyatts) AS columns,
    NULL::oid AS target_oid,
    NULL::text [] AS target_columns,
    NULL::text AS expression
FROM pg_catalog.pg_index AS i
WHERE i.indrelid = any($1::oid[]) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
UNION ALL
SELECT
    c.conrelid,
    CASE c.contype WHEN 'f' THEN 'foreign' ELSE 'check' END,
    (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(c.conkey) WITH ORDINALITY AS k (number, place)
    INNER JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = k.number),
    nullif(c.confrelid, 0),
    (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(c.confkey) WITH ORDINALITY AS k (number, place)
    INNER JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.confrelid AND a.attnum = k.number),
    CASE WHEN c.contype = 'c' THEN pg_catalog.pg_get_constraintdef(c.oid) END
FROM pg_catalog.pg_constraint AS c
WHERE c.conrelid = any($1::oid[]) AND c.contype IN ('f', 'c')
