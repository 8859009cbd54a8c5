-- Advance the offset, and change the stored unfinished rows with it: $5 is what the table was like, $6 are new rows, $7
-- are finished or deleted ones.
-- In one statement, so that no crash separates them, also behind a pooler. Nothing changes if another process has stored
-- a higher offset: what this one knows of unfinished rows is old.
WITH kept AS (
    UPDATE stream_relay.positions
    SET safe = $3, lowest = greatest(lowest, $4), identity = $5, updated_at = now()
    WHERE consumer = $1 AND source = $2 AND safe <= $3
    RETURNING consumer, source
),

removed AS (
    DELETE FROM stream_relay.unfinished AS u
    USING kept
    WHERE u.consumer = kept.consumer AND u.source = kept.source AND u.id = ANY($7::bigint [])
)

INSERT INTO stream_relay.unfinished (consumer, source, id)
SELECT kept.consumer, kept.source, a.id
FROM kept
CROSS JOIN unnest($6::bigint []) AS a (id)
ON CONFLICT (consumer, source, id) DO NOTHING
