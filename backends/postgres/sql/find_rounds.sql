-- The id of the newest row that is round $2[i] of game $1[i] for any i; no row: none is among the newest million rows.
-- In descending order of the index, since the newest rounds of a log are near its end. Bounded, since the log may hold
-- rounds of another table.
SELECT r.row_offset
FROM (
    SELECT
        t.:"order_column"::bigint AS row_offset,
        t.:"game_slug"::text AS game_slug,
        t.:"round_id"::text AS round_id
    FROM :"schema".:"table" AS t
    ORDER BY t.:"order_column" DESC
    LIMIT 1000000
) AS r
WHERE
    (r.game_slug, r.round_id) IN (
        SELECT
            w.game_slug,
            w.round_id
        FROM unnest($1::text [], $2::text []) AS w (game_slug, round_id)
    )
ORDER BY r.row_offset DESC
LIMIT 1
