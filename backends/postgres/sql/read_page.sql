-- The next $4 rows after the row with id $1 and key $2, up to id $3, ordered by id and key.
-- By key and not by OFFSET, so that the last page costs as much as the first. The first condition is for the index. The
-- key is text, as hexadecimal digits, that differs for rows with the same id, such as the game.
SELECT
    :row_key COLLATE "C" AS row_key,
    :row_columns
FROM :"schema".:"table" AS t
WHERE
    t.:"order_column" >= $1::bigint
    AND t.:"order_column" <= $3::bigint
    AND (t.:"order_column"::bigint, :row_key COLLATE "C") > ($1::bigint, $2::text COLLATE "C")
ORDER BY t.:"order_column", :row_key COLLATE "C"
LIMIT $4
