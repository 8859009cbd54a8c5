-- How many rows of a child of the table have ids up to $1, or up to $2 and are older than transaction $3; 100,000 at most.
-- With the lowest and the highest of these ids.
SELECT
    count(*) AS found,
    min(r.id) AS lowest,
    max(r.id) AS highest
FROM (
    SELECT t.:"order_column"::bigint AS id
    FROM :"schema".:"table" AS t
    WHERE
        t.:"order_column" <= $2::bigint
        AND (t.:"order_column" <= $1::bigint OR pg_catalog.age(t.xmin) > pg_catalog.age($3::text::xid8::xid))
    LIMIT 100000
) AS r
