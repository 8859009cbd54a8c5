-- How far the feed reaches, and which readers keep its rows, the one that is furthest back first.
SELECT
    coalesce(pg_catalog.pg_sequence_last_value(s.sequence), 0) AS newest,
    (SELECT min(f.seq) FROM stream_relay.feed AS f) AS oldest,
    (
        SELECT extract(EPOCH FROM clock_timestamp() - f.written_at)::float8
        FROM stream_relay.feed AS f ORDER BY f.seq LIMIT 1
    ) AS oldest_s,
    pg_catalog.pg_table_size('stream_relay.feed') AS bytes,
    (
        SELECT array_agg(p.consumer ORDER BY p.safe)
        FROM stream_relay.positions AS p WHERE p.source = 'stream_relay.feed'
    ) AS readers,
    (SELECT min(p.safe) FROM stream_relay.positions AS p WHERE p.source = 'stream_relay.feed') AS safe
FROM (SELECT pg_catalog.pg_get_serial_sequence('stream_relay.feed', 'seq')::regclass AS sequence) AS s
