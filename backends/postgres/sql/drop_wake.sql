-- Stop notifying readers of the table, and delete this reader's offset. With the last offset, drop everything of ours.
SELECT pg_catalog.set_config('stream_relay.table', format('%I.%I', :'schema', :'table'), false);

DO $$
DECLARE
    target regclass;
    name text;
BEGIN
    FOR target, name IN
        WITH RECURSIVE tree (relid) AS (
            SELECT to_regclass(current_setting('stream_relay.table'))::oid
            UNION
            SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i INNER JOIN tree ON tree.relid = i.inhparent
        )
        SELECT tree.relid::regclass, t.tgname FROM tree
        INNER JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = tree.relid
        WHERE t.tgname IN ('stream_relay_wake', 'stream_relay_wake_update')
    LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', name, target);
    END LOOP;
END
$$;

DELETE FROM stream_relay.positions WHERE consumer = :'consumer' AND source = :'source';

DO $$
BEGIN
    -- A setup of an older version made no table of unfinished rows.
    IF to_regclass('stream_relay.unfinished') IS NOT NULL THEN
        DELETE FROM stream_relay.unfinished WHERE consumer = :'consumer' AND source = :'source';
    END IF;
    IF NOT EXISTS (SELECT FROM stream_relay.positions) THEN
        -- Without CASCADE, so that this fails while another table has the trigger.
        DROP FUNCTION IF EXISTS stream_relay.wake();
        DROP TABLE IF EXISTS stream_relay.unfinished;
        DROP TABLE stream_relay.positions;
        DROP SCHEMA stream_relay;
    END IF;
EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
    NULL;
END
$$;
