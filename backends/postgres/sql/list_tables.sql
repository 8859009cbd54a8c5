-- The tables and views of a database that may hold rounds, or what rounds refer to; partitions and tables of extensions are
-- left out. Estimates come from the statistics, so that no table is read. Ordered, so that the limit of the caller is stable.
SELECT
    c.oid,
    n.nspname::text AS schema_name,
    c.relname::text AS table_name,
    c.relkind::text AS kind,
    c.relpersistence::text AS persistence,
    c.relreplident::text AS identity,
    c.relrowsecurity AS has_row_security,
    row_security_active(c.oid) AS hides_rows,
    has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS may_read,
    greatest(c.reltuples, 0)::bigint AS estimated_rows,
    pg_catalog.pg_stat_get_tuples_inserted(c.oid) AS inserted,
    pg_catalog.pg_stat_get_tuples_updated(c.oid) AS updated,
    pg_catalog.pg_stat_get_tuples_deleted(c.oid) AS deleted,
    coalesce((SELECT array_agg(i.inhrelid::regclass::text ORDER BY i.inhrelid) FROM pg_catalog.pg_inherits AS i
    WHERE i.inhparent = c.oid AND c.relkind <> 'p'), '{}') AS children,
    EXISTS (SELECT FROM pg_catalog.pg_inherits AS i WHERE i.inhrelid = c.oid) AS is_child,
    pg_catalog.pg_get_userbyid(c.relowner)::text AS owner
FROM pg_catalog.pg_class AS c
INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE
    c.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND NOT c.relispartition
    AND n.nspname <> 'information_schema'
    AND n.nspname NOT LIKE 'pg\_%'
    AND n.nspname <> 'stream_relay'
    AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend AS d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
    )
ORDER BY n.nspname, c.relname
LIMIT 5000
