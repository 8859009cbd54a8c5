-- The newest number of the feed that was taken, committed or not.
SELECT coalesce(
    pg_catalog.pg_sequence_last_value(pg_catalog.pg_get_serial_sequence('stream_relay.feed', 'seq')::regclass), 0
)
