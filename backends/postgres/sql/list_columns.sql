-- The columns of the tables with the oids $1, in their order. `sequenced`: the database numbers the rows.
SELECT
    a.attrelid AS table_oid,
    a.attname::text AS name,
    a.atttypid AS type_oid,
    pg_catalog.format_type(a.atttypid, a.atttypmod) AS type_name,
    coalesce(b.typcategory, t.typcategory)::text AS category,
    coalesce(b.typname, t.typname)::text AS base_type,
    a.attnotnull OR t.typnotnull AS not_null,
    a.attgenerated::text AS generated,
    a.attidentity <> '' OR coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid) LIKE '%nextval(%', FALSE) AS sequenced,
    pg_catalog.pg_get_expr(d.adbin, d.adrelid) AS default_text,
    coalesce((SELECT array_agg(e.enumlabel::text ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum AS e
    WHERE e.enumtypid = coalesce(nullif(t.typbasetype, 0), a.atttypid)), '{}') AS labels
FROM pg_catalog.pg_attribute AS a
INNER JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_type AS b ON b.oid = t.typbasetype AND t.typbasetype <> 0
LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.attgenerated = ''
WHERE a.attrelid = any($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
