-- The next $4 rows after the row with id $1 of game $2, up to id $3, ordered by id and game.
-- By key and not by OFFSET, so that the last page costs as much as the first. The first condition is for the index.
SELECT :row_columns
FROM :"schema".:"table" AS t
WHERE
    t.:"order_column" >= $1::bigint
    AND t.:"order_column" <= $3::bigint
    AND (t.:"order_column"::bigint, coalesce(t.:"game_slug"::text, '') COLLATE "C") > ($1::bigint, $2::text COLLATE "C")
ORDER BY t.:"order_column", coalesce(t.:"game_slug"::text, '') COLLATE "C"
LIMIT $4
