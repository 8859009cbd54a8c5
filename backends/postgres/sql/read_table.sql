-- What reading a table in the order of a column needs to know of the server and the table; no row: no such table.
SELECT
    c.relkind = 'p' AS is_partitioned,
    current_setting('server_version_num')::integer AS version,
    pg_catalog.pg_is_in_recovery() AS is_standby,
    has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS may_read,
    -- An integer, or a numeric without a fraction, also below a domain.
    coalesce(
        y.base IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
        OR (y.base = 'numeric'::regtype AND y.modifier >= 0 AND (y.modifier - 4) & 2047 = 0),
        FALSE
    ) AS is_ordered,
    (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
    (SELECT array_agg(a.atttypid::bigint ORDER BY a.attnum) FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS column_types,
    EXISTS (
        SELECT FROM pg_catalog.pg_index AS i
        WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL AND i.indkey[0] = o.attnum
    ) AS is_indexed,
    EXISTS (
        SELECT FROM pg_catalog.pg_index AS i
        WHERE
            i.indrelid = c.oid AND i.indisvalid AND i.indisunique AND i.indpred IS NULL
            AND i.indkey[0] = o.attnum AND i.indnkeyatts = 1
    ) AS is_unique,
    -- A unique index of a partitioned table has to include the partition key. A sequence can number the rows instead.
    CASE
        WHEN o.attidentity = 'a' THEN 'always'
        WHEN o.attidentity = 'd' THEN 'by default'
        WHEN EXISTS (
            SELECT FROM pg_catalog.pg_attrdef AS d
            WHERE d.adrelid = c.oid AND d.adnum = o.attnum
                AND pg_catalog.pg_get_expr(d.adbin, d.adrelid) LIKE '%nextval(%'
        ) THEN 'by default'
    END AS numbered,
    (
        SELECT s.seqcache FROM pg_catalog.pg_sequence AS s
        WHERE s.seqrelid = to_regclass(pg_catalog.pg_get_serial_sequence(format('%I.%I', n.nspname, c.relname), o.attname))
    ) AS sequence_cache,
    current_setting('track_commit_timestamp') = 'on' AS has_commit_times
FROM pg_catalog.pg_class AS c
INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute AS o
    ON o.attrelid = c.oid AND o.attname = :'order_column' AND o.attnum > 0 AND NOT o.attisdropped
LEFT JOIN LATERAL (
    SELECT
        coalesce(nullif(t.typbasetype, 0), t.oid) AS base,
        CASE WHEN t.typbasetype = 0 THEN o.atttypmod ELSE t.typtypmod END AS modifier
    FROM pg_catalog.pg_type AS t
    WHERE t.oid = o.atttypid
) AS y ON TRUE
WHERE n.nspname = :'schema' AND c.relname = :'table' AND c.relkind IN ('r', 'p')
