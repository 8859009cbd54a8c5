-- What `setup --feed` made, and our rights on it. `sequence_is_behind`: new rows would get numbers that were used before.
SELECT
    f.oid IS NOT NULL AS has_feed,
    p.oid IS NOT NULL AS has_positions,
    to_regprocedure('stream_relay.feed_put(text, json, json, text, bigint)') IS NOT NULL AS has_function,
    coalesce(has_schema_privilege(f.relnamespace, 'USAGE') AND has_table_privilege(f.oid, 'SELECT'), FALSE) AS may_read,
    coalesce(
        has_table_privilege(f.oid, 'DELETE') AND has_table_privilege(p.oid, 'SELECT')
        AND has_table_privilege(p.oid, 'INSERT') AND has_table_privilege(p.oid, 'UPDATE')
        -- Not reached without the table, since a missing schema would be an error.
        AND CASE
            WHEN f.oid IS NOT NULL
                THEN has_sequence_privilege(
                    pg_catalog.pg_get_serial_sequence('stream_relay.feed', 'seq')::regclass, 'SELECT'
                )
        END,
        FALSE
    ) AS may_delete
FROM (VALUES (to_regclass('stream_relay.feed'), to_regclass('stream_relay.positions'))) AS ours (feed, positions)
LEFT JOIN pg_catalog.pg_class AS f ON f.oid = ours.feed
LEFT JOIN pg_catalog.pg_class AS p ON p.oid = ours.positions
