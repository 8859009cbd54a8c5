-- Whether a publication stands, sends inserts, and holds the table of rounds; no row: there is none.
-- Without publish_via_partition_root a partitioned table is a member, but is listed, and its rows are sent, as its
-- partitions.
SELECT
    p.pubinsert,
    p.puballtables OR EXISTS (
        SELECT
        FROM pg_catalog.pg_publication_rel AS r
        INNER JOIN pg_catalog.pg_class AS c ON c.oid = r.prrelid
        INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE r.prpubid = p.oid AND n.nspname = :'schema' AND c.relname = :'table'
    ) AS member,
    EXISTS (
        SELECT
        FROM pg_catalog.pg_publication_tables AS t
        WHERE t.pubname = p.pubname AND t.schemaname = :'schema' AND t.tablename = :'table'
    ) AS covers,
    concat_ws(
        '.', p.oid,
        (
            SELECT c.oid FROM pg_catalog.pg_class AS c
            INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname = :'schema' AND c.relname = :'table'
        ),
        (
            SELECT r.oid FROM pg_catalog.pg_publication_rel AS r
            INNER JOIN pg_catalog.pg_class AS c ON c.oid = r.prrelid
            INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            WHERE r.prpubid = p.oid AND n.nspname = :'schema' AND c.relname = :'table'
        )
    ) AS incarnation
FROM pg_catalog.pg_publication AS p
WHERE p.pubname = :'publication'
