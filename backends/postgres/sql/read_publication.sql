-- Whether a publication publishes inserts, and whether it includes the table of rounds; no row: no such publication.
-- Without publish_via_partition_root a partitioned table is a member, but its partitions are listed, and rows are sent
-- as theirs. `ids` changes when the publication, the table or its membership is dropped and recreated.
SELECT
    p.pubinsert,
    p.puballtables OR EXISTS (
        SELECT
        FROM pg_catalog.pg_publication_rel AS r
        INNER JOIN pg_catalog.pg_class AS c ON c.oid = r.prrelid
        INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE r.prpubid = p.oid AND n.nspname = :'schema' AND c.relname = :'table'
    ) AS is_member,
    EXISTS (
        SELECT
        FROM pg_catalog.pg_publication_tables AS t
        WHERE t.pubname = p.pubname AND t.schemaname = :'schema' AND t.tablename = :'table'
    ) AS is_published,
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
    ) AS ids
FROM pg_catalog.pg_publication AS p
WHERE p.pubname = :'publication'
