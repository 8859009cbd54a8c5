-- What `setup` made for postgres-notify: the triggers of the table and its children, and the tables of offsets and of
-- unfinished rows with our rights on them.
WITH RECURSIVE tree (relid) AS (
    SELECT to_regclass(format('%I.%I', :'schema', :'table'))::oid
    UNION
    SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i INNER JOIN tree ON tree.relid = i.inhparent
),

woken (relid, name) AS (
    SELECT
        t.tgrelid,
        t.tgname
    FROM pg_catalog.pg_trigger AS t
    INNER JOIN tree ON tree.relid = t.tgrelid
    WHERE t.tgname IN ('stream_relay_wake', 'stream_relay_wake_update') AND t.tgenabled <> 'D'
)

SELECT
    EXISTS (
        SELECT FROM woken AS w
        WHERE w.relid = to_regclass(format('%I.%I', :'schema', :'table'))::oid AND w.name = 'stream_relay_wake'
    ) AS has_trigger,
    EXISTS (
        SELECT FROM woken AS w
        WHERE w.relid = to_regclass(format('%I.%I', :'schema', :'table'))::oid AND w.name = 'stream_relay_wake_update'
    ) AS has_update_trigger,
    (
        SELECT array_agg(c.oid::regclass::text ORDER BY c.oid) FROM tree
        INNER JOIN pg_catalog.pg_class AS c ON c.oid = tree.relid
        WHERE
            c.relkind = 'r' AND NOT c.relispartition AND c.oid <> to_regclass(format('%I.%I', :'schema', :'table'))::oid
            AND NOT EXISTS (SELECT FROM woken AS w WHERE w.relid = c.oid AND w.name = 'stream_relay_wake')
    ) AS silent_children,
    (
        SELECT array_agg(c.oid::regclass::text ORDER BY c.oid) FROM tree
        INNER JOIN pg_catalog.pg_class AS c ON c.oid = tree.relid
        WHERE c.relkind IN ('r', 'f') AND NOT c.relispartition AND c.oid <> to_regclass(format('%I.%I', :'schema', :'table'))::oid
    ) AS children,
    (
        SELECT array_agg(c.oid::regclass::text ORDER BY c.oid) FROM tree
        INNER JOIN pg_catalog.pg_class AS c ON c.oid = tree.relid
        INNER JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = :'order_column'
        WHERE
            c.relkind = 'r' AND NOT c.relispartition AND c.oid <> to_regclass(format('%I.%I', :'schema', :'table'))::oid AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_index AS i
                WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL AND i.indkey[0] = a.attnum
            )
    ) AS unindexed_children,
    (
        SELECT array_agg(a.attname::text) FROM pg_catalog.pg_attribute AS a
        WHERE
            a.attrelid = to_regclass(format('%I.%I', :'schema', :'table')) AND a.attnum > 0
            AND NOT a.attisdropped AND a.attnotnull
    ) AS required_columns,
    (
        SELECT q.seqcycle FROM pg_catalog.pg_attribute AS a
        INNER JOIN pg_catalog.pg_sequence AS q
            ON q.seqrelid = to_regclass(
                pg_catalog.pg_get_serial_sequence(format('%I.%I', :'schema', :'table'), a.attname)
            )
        WHERE a.attrelid = to_regclass(format('%I.%I', :'schema', :'table')) AND a.attname = :'order_column'
    ) AS sequence_cycles,
    p.oid IS NOT NULL AS has_positions,
    coalesce(
        has_schema_privilege(p.relnamespace, 'USAGE')
        AND has_table_privilege(p.oid, 'SELECT') AND has_table_privilege(p.oid, 'INSERT')
        AND has_table_privilege(p.oid, 'UPDATE'),
        FALSE
    ) AS may_keep_position,
    u.oid IS NOT NULL AS has_unfinished,
    coalesce(
        has_table_privilege(u.oid, 'SELECT') AND has_table_privilege(u.oid, 'INSERT')
        AND has_table_privilege(u.oid, 'DELETE'),
        FALSE
    ) AS may_keep_unfinished,
    EXISTS (
        SELECT FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = p.oid AND a.attname = 'identity' AND NOT a.attisdropped
    ) AS keeps_identity
FROM (VALUES ('stream_relay')) AS ours (schema_name)
LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = ours.schema_name
LEFT JOIN pg_catalog.pg_class AS p ON p.relnamespace = n.oid AND p.relname = 'positions'
LEFT JOIN pg_catalog.pg_class AS u ON u.relnamespace = n.oid AND u.relname = 'unfinished'
