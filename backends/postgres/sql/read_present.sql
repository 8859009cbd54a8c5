-- Which of the ids $1 the table still has.
SELECT t.:"order_column"::bigint AS id
FROM :"schema".:"table" AS t
WHERE t.:"order_column" = ANY($1::bigint [])
