-- The tables that a table is a child or a partition of, at any depth.
WITH RECURSIVE tree (oid) AS (
    SELECT i.inhparent FROM pg_catalog.pg_inherits AS i WHERE i.inhrelid = :'oid'::oid
    UNION
    SELECT i.inhparent FROM tree AS t INNER JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = t.oid
)

SELECT
    n.nspname AS schema_name,
    c.relname AS table_name
FROM tree AS t
INNER JOIN pg_catalog.pg_class AS c ON c.oid = t.oid
INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
