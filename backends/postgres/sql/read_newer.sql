-- Where the rows begin that transaction $1 or a later one has written: the lowest id of them, up to $2; the highest id of the
-- other rows below it; and the lowest id above $2. NULL: there is no such row.
-- In one snapshot: a row that is committed meanwhile is above the second, and below the third if it is new.
-- Reads the whole table, so it runs only when the ids have begun again.
SELECT
    n.lowest_new,
    (
        SELECT max(t.:"order_column")::bigint
        FROM :"schema".:"table" AS t
        WHERE t.:"order_column" <= coalesce(n.lowest_new - 1, $2::bigint)
    ) AS highest_old,
    (SELECT min(t.:"order_column")::bigint FROM :"schema".:"table" AS t WHERE t.:"order_column" > $2::bigint) AS lowest_above
FROM (
    SELECT min(t.:"order_column")::bigint AS lowest_new
    FROM :"schema".:"table" AS t
    WHERE
        t.:"order_column" <= $2::bigint
        AND pg_catalog.age(t.xmin) BETWEEN 0 AND pg_catalog.age($1::text::xid8::xid)
) AS n
