-- The lowest id, up to $2, of a row that transaction $1 or a later one has written; NULL: there is none.
-- Reads the whole table, so it runs only when the ids have begun again.
SELECT min(t.:"order_column")::bigint
FROM :"schema".:"table" AS t
WHERE
    t.:"order_column" <= $2::bigint
    AND pg_catalog.age(t.xmin) BETWEEN 0 AND pg_catalog.age($1::text::xid8::xid)
