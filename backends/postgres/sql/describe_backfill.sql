-- What a recovery needs that reads the table: the owner of the table may recreate its publication, and row level security
-- hides rows from SELECT but not from the write-ahead log; no row: no such table.
SELECT
    pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owns,
    pg_catalog.pg_get_userbyid(c.relowner)::text AS owner,
    row_security_active(c.oid) AS hides_rows
FROM pg_catalog.pg_class AS c
INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = :'schema' AND c.relname = :'table'
