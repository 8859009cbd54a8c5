-- Create the triggers that a table lacks, in it and in its INHERITS children; partitions get those of their parent.
-- A trigger that is as it should be is not touched: creating one waits for the writers of the table, and blocks them.
-- Other triggers of ours are dropped: the mapping has changed. A table that a subscription fills needs triggers that
-- also fire for it, unless the feed itself is filled by one.
DO $do$
DECLARE
    relation record;
    wanted record;
    old record;
    enabled "char";
    names text[] := :'names'::text[];
    statements text[] := :'statements'::text[];
BEGIN
    PERFORM set_config('lock_timeout', '10s', true);
    FOR relation IN
        WITH RECURSIVE tree (oid, depth) AS (
            SELECT :'table'::regclass::oid, 0
            UNION ALL
            SELECT i.inhrelid, t.depth + 1 FROM pg_catalog.pg_inherits AS i INNER JOIN tree AS t ON i.inhparent = t.oid
        )
        SELECT
            c.oid,
            format('%I.%I', n.nspname, c.relname) AS name,
            CASE
                WHEN
                    EXISTS (SELECT FROM pg_catalog.pg_subscription_rel AS s WHERE s.srrelid = c.oid)
                    AND NOT EXISTS (
                        SELECT FROM pg_catalog.pg_subscription_rel AS s WHERE s.srrelid = 'stream_relay.feed'::regclass
                    )
                    THEN 'A'
                ELSE 'O'
            END AS enabled
        FROM (SELECT t.oid, min(t.depth) AS depth FROM tree AS t GROUP BY t.oid) AS t
        INNER JOIN pg_catalog.pg_class AS c ON c.oid = t.oid
        INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND (t.depth = 0 OR NOT c.relispartition)
        ORDER BY t.depth, c.oid
    LOOP
        FOR wanted IN SELECT * FROM unnest(names, statements) AS w (name, statement) LOOP
            SELECT t.tgenabled INTO enabled FROM pg_catalog.pg_trigger AS t
            WHERE
                t.tgrelid = relation.oid AND t.tgname = wanted.name
                AND encode(t.tgargs, 'escape') LIKE '%' || :'version' || '%';
            IF NOT FOUND OR enabled IN ('D', 'R') THEN
                EXECUTE format(wanted.statement, relation.name);
                enabled := 'O';
            END IF;
            IF relation.enabled = 'A' AND enabled = 'O' THEN
                EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', relation.name, wanted.name);
            END IF;
        END LOOP;
        FOR old IN
            SELECT t.tgname FROM pg_catalog.pg_trigger AS t
            WHERE t.tgrelid = relation.oid AND t.tgname LIKE 'stream\_relay\_feed\_%' AND t.tgname <> ALL (names)
        LOOP
            EXECUTE format('DROP TRIGGER %I ON %s', old.tgname, relation.name);
        END LOOP;
    END LOOP;
END
$do$
