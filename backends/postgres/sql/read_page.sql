-- The next $4 rows of the table after the row with id $1 of game $2, up to id $3, in that order.
-- By key and never by OFFSET, so that the last page costs what the first does; the first condition is for the index.
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
WHERE
    t.:"order_column" >= $1::bigint
    AND t.:"order_column" <= $3::bigint
    AND (t.:"order_column"::bigint, coalesce(t.:"game_slug"::text, '') COLLATE "C") > ($1::bigint, $2::text COLLATE "C")
ORDER BY t.:"order_column", coalesce(t.:"game_slug"::text, '') COLLATE "C"
LIMIT $4
