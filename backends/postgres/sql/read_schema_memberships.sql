-- The schemas that a publication includes as a whole, each with the version of its row. PostgreSQL 15 and later.
SELECT
    s.nspname AS schema_name,
    concat_ws(':', m.oid, m.xmin) AS membership
FROM pg_catalog.pg_publication_namespace AS m
INNER JOIN pg_catalog.pg_publication AS p ON p.oid = m.pnpubid
INNER JOIN pg_catalog.pg_namespace AS s ON s.oid = m.pnnspid
WHERE p.pubname = :'publication'
