-- The columns of a table in their order, and the kind of table; no row: no such table, or it has no columns.
SELECT
    a.attname,
    a.atttypid::bigint AS column_type,
    c.relkind,
    c.relpersistence
FROM pg_catalog.pg_class AS c
INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
INNER JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
WHERE
    n.nspname = :'schema'
    AND c.relname = :'table'
    AND c.relkind IN ('r', 'p')
    AND a.attnum > 0
    AND NOT a.attisdropped
ORDER BY a.attnum
