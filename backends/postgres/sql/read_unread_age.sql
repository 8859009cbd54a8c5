-- How long ago the oldest row of the feed was written that reader $1 has not stored, in seconds; no row: it has stored all.
-- By the clock that wrote it.
SELECT extract(EPOCH FROM clock_timestamp() - f.written_at)::float8 AS age_s
FROM stream_relay.feed AS f
WHERE
    f.seq > coalesce(
        (SELECT p.safe FROM stream_relay.positions AS p WHERE p.consumer = $1 AND p.source = 'stream_relay.feed'), 0
    )
ORDER BY f.seq
LIMIT 1
