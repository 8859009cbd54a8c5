-- The triggers $2 of the feed that are not as they should be on table $1, its partitions and its INHERITS children.
-- A trigger is outdated if it was made for another mapping than $3. On a table that a subscription fills, a trigger has
-- to fire for that too, unless a subscription also fills the feed.
WITH RECURSIVE tree (oid) AS (
    SELECT $1::text::regclass::oid
    UNION
    SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i INNER JOIN tree AS t ON i.inhparent = t.oid
)
SELECT
    r.relation,
    string_agg(DISTINCT r.fault, ', ') AS faults
FROM (
    SELECT
        format('%I.%I', n.nspname, c.relname) AS relation,
        CASE
            WHEN t.oid IS NULL THEN 'missing'
            WHEN t.tgenabled IN ('D', 'R') THEN 'disabled'
            WHEN pg_catalog.encode(t.tgargs, 'escape') NOT LIKE '%' || $3::text || '%' THEN 'of another mapping'
            WHEN
                t.tgenabled = 'O'
                AND EXISTS (SELECT FROM pg_catalog.pg_subscription_rel AS s WHERE s.srrelid = c.oid)
                AND NOT EXISTS (
                    SELECT FROM pg_catalog.pg_subscription_rel AS s WHERE s.srrelid = to_regclass('stream_relay.feed')
                )
                THEN 'not fired by the subscription'
        END AS fault
    FROM tree
    INNER JOIN pg_catalog.pg_class AS c ON c.oid = tree.oid
    INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    CROSS JOIN unnest($2::text []) AS w (name)
    LEFT JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = c.oid AND t.tgname = w.name
    WHERE c.relkind IN ('r', 'p')
) AS r
WHERE r.fault IS NOT NULL
GROUP BY r.relation
ORDER BY r.relation
LIMIT 20
