-- Delete up to $2 rows that every reader of the feed has stored and that are older than $1 seconds; return their number.
-- A reader that has not stored an offset yet, or is away, keeps its rows: deletion ends at the lowest offset. Nothing is
-- deleted while the sequence is behind it: such a sequence was set back, and the rows below are new.
WITH stored AS (
    SELECT min(p.safe) AS safe FROM stream_relay.positions AS p WHERE p.source = 'stream_relay.feed'
),
gone AS (
    DELETE FROM stream_relay.feed AS f
    WHERE f.seq IN (
        SELECT o.seq FROM stream_relay.feed AS o CROSS JOIN stored AS s
        WHERE
            o.seq <= s.safe
            AND s.safe <= coalesce(
                pg_catalog.pg_sequence_last_value(pg_catalog.pg_get_serial_sequence('stream_relay.feed', 'seq')::regclass), 0
            )
        ORDER BY o.seq
        LIMIT $2
    )
    AND f.written_at < clock_timestamp() - make_interval(secs => $1)
    RETURNING 1
)
SELECT count(*) FROM gone
