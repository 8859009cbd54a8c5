-- Tables of a publication, with their partitions, that have no replica identity: an UPDATE or DELETE of them fails while
-- the publication sends those.
SELECT format('%I.%I', n.nspname, c.relname) AS quoted
FROM pg_catalog.pg_publication_tables AS t
INNER JOIN pg_catalog.pg_namespace AS pn ON pn.nspname = t.schemaname
INNER JOIN pg_catalog.pg_class AS p ON p.relnamespace = pn.oid AND p.relname = t.tablename
CROSS JOIN LATERAL (
    SELECT p.oid AS relid WHERE p.relkind = 'r'
    UNION ALL
    SELECT l.relid FROM pg_catalog.pg_partition_tree(p.oid) AS l WHERE p.relkind = 'p' AND l.isleaf
) AS l
INNER JOIN pg_catalog.pg_class AS c ON c.oid = l.relid AND c.relkind = 'r'
INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE
    t.pubname = :'publication'
    AND c.relreplident <> 'f'
    AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_index AS x
        WHERE
            x.indrelid = c.oid AND x.indisvalid AND x.indimmediate
            AND CASE c.relreplident WHEN 'd' THEN x.indisprimary WHEN 'i' THEN x.indisreplident ELSE FALSE END
    )
ORDER BY 1
