-- Notify the reader whenever a statement has inserted into the table of rounds. After create_offsets.sql.
-- Without a payload: its size limit would fail the INSERT, and equal notifications of a transaction are sent once.
-- Nothing here may fail an INSERT: a full queue fails the commit, where no handler helps, so the queue is checked first;
-- the handler catches everything else. Partitions and children get the trigger too: a statement trigger of their parent
-- does not fire for statements that name them. Run as the owner of the table. Safe to run again.
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('stream-relay'), pg_catalog.hashtext('wake'));

CREATE OR REPLACE FUNCTION stream_relay.wake() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF pg_notification_queue_usage() < 0.5 THEN
        PERFORM pg_notify(TG_ARGV[0], '');
    END IF;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;

-- Variables of psql have no effect within a DO block.
SELECT
    pg_catalog.set_config('stream_relay.table', format('%I.%I', :'schema', :'table'), false),
    pg_catalog.set_config('stream_relay.channel', :'channel', false);

DO $$
DECLARE
    target regclass;
BEGIN
    FOR target IN
        WITH RECURSIVE tree (relid) AS (
            SELECT current_setting('stream_relay.table')::regclass::oid
            UNION
            SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i INNER JOIN tree ON tree.relid = i.inhparent
        )
        SELECT c.oid::regclass FROM tree INNER JOIN pg_catalog.pg_class AS c ON c.oid = tree.relid
        WHERE c.relkind IN ('r', 'p') ORDER BY c.oid
    LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS stream_relay_wake ON %s', target);
        EXECUTE format(
            'CREATE TRIGGER stream_relay_wake AFTER INSERT OR TRUNCATE ON %s FOR EACH STATEMENT '
            'EXECUTE FUNCTION stream_relay.wake(%L)', target, current_setting('stream_relay.channel')
        );
    END LOOP;
END
$$;
