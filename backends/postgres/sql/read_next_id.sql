-- The lowest visible id above $1; NULL: there is none.
SELECT min(t.:"order_column")::bigint
FROM :"schema".:"table" AS t
WHERE t.:"order_column" > $1::bigint
