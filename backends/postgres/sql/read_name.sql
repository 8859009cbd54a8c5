-- The schema and the name of a table by its OID.
SELECT
    n.nspname::text AS schema_name,
    c.relname::text AS table_name
FROM pg_catalog.pg_class AS c
INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = $1::bigint::oid
