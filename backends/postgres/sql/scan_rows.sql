-- Rows whose order column is in any of the ranges $1[i] to $2[i], in the order of that column, at most $3.
-- A subquery for each range makes each an index range scan, however many there are. One statement reads all of them in
-- the same snapshot.
SELECT r.*
FROM unnest($1::bigint [], $2::bigint []) AS s (low, high)
CROSS JOIN LATERAL (
    SELECT :row_columns
    FROM :"schema".:"table" AS t
    WHERE t.:"order_column" BETWEEN s.low AND s.high
    ORDER BY t.:"order_column"
    LIMIT $3
) AS r
ORDER BY r.row_offset
LIMIT $3
