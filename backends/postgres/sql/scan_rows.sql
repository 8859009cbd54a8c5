-- Rows whose order column lies in any of the spans $1[i] to $2[i], in its order, $3 at most.
-- A scan of its own for each span, so that each is a range of the index however many there are; one statement, so that
-- all of them see the same snapshot. Text throughout: see mapping.Row. Commit times are there only where they are kept.
SELECT r.*
FROM unnest($1::bigint [], $2::bigint []) AS s (low, high)
CROSS JOIN LATERAL (
    SELECT
        t.:"order_column"::bigint AS row_offset,
        t.:"round_id"::text AS round_id,
        t.:"game_slug"::text AS game_slug,
        t.:"game_type"::text AS game_type,
        t.:"finished_at"::text AS finished_at,
        t.:"extras"::text AS extras,
        CASE
            WHEN current_setting('track_commit_timestamp') = 'on'
                THEN (extract(EPOCH FROM pg_catalog.pg_xact_commit_timestamp(t.xmin)) * 1000)::bigint
        END AS committed_ms
    FROM :"schema".:"table" AS t
    WHERE t.:"order_column" BETWEEN s.low AND s.high
    ORDER BY t.:"order_column"
    LIMIT $3
) AS r
ORDER BY r.row_offset
LIMIT $3
