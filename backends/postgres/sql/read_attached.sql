-- How many rows of a child of the table have ids up to $1, 100,000 at most, and the lowest and the highest of them.
SELECT
    count(*) AS found,
    min(r.id) AS lowest,
    max(r.id) AS highest
FROM (
    SELECT t.:"order_column"::bigint AS id FROM :"schema".:"table" AS t WHERE t.:"order_column" <= $1::bigint LIMIT 100000
) AS r
