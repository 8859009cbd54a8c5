-- The ids of the rows that are not finished, the newest $2 among the newest million rows up to id $1.
-- For a first start: these rows become rounds later. In descending order of the index, and bounded, as in find_rounds.sql.
SELECT r.row_offset
FROM (
    SELECT
        t.:"order_column"::bigint AS row_offset,
        :is_finished AS is_finished
    FROM :"schema".:"table" AS t
    WHERE t.:"order_column" <= $1::bigint
    ORDER BY t.:"order_column" DESC
    LIMIT 1000000
) AS r
WHERE NOT r.is_finished
ORDER BY r.row_offset DESC
LIMIT $2
