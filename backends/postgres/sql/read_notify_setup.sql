-- What `setup` made for postgres-notify: the trigger of the table, and the table of offsets with our rights on it.
SELECT
    EXISTS (
        SELECT FROM pg_catalog.pg_trigger AS t
        INNER JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
        INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE
            n.nspname = :'schema' AND c.relname = :'table' AND c.relkind IN ('r', 'p')
            AND t.tgname = 'stream_relay_wake' AND t.tgenabled <> 'D'
    ) AS has_trigger,
    p.oid IS NOT NULL AS has_positions,
    coalesce(
        has_schema_privilege(p.relnamespace, 'USAGE')
        AND has_table_privilege(p.oid, 'SELECT') AND has_table_privilege(p.oid, 'INSERT')
        AND has_table_privilege(p.oid, 'UPDATE'),
        FALSE
    ) AS may_keep_position
FROM (VALUES ('stream_relay', 'positions')) AS ours (schema_name, table_name)
LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = ours.schema_name
LEFT JOIN pg_catalog.pg_class AS p ON p.relnamespace = n.oid AND p.relname = ours.table_name
