-- Notify the reader also whenever a statement has updated the table of rounds, if its rows are finished by UPDATE: a table
-- without such rows does not pay for it. With 'auto' they are unless the column is NOT NULL; a member of a document never
-- is: see mapping.finishing.
-- After create_wake.sql, and with the same care: see there.
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('stream-relay'), pg_catalog.hashtext('wake'));

SELECT
    pg_catalog.set_config('stream_relay.table', format('%I.%I', :'schema', :'table'), false),
    pg_catalog.set_config('stream_relay.channel', :'channel', false),
    pg_catalog.set_config('stream_relay.finished_at', :'finished_at', false),
    pg_catalog.set_config('stream_relay.finished_by', :'finished_by', false);

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
        EXECUTE format('DROP TRIGGER IF EXISTS stream_relay_wake_update ON %s', target);
        IF current_setting('stream_relay.finished_by') = 'update' OR (
            current_setting('stream_relay.finished_by') = 'auto' AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_attribute AS a
                WHERE
                    a.attrelid = current_setting('stream_relay.table')::regclass
                    AND a.attname = current_setting('stream_relay.finished_at') AND a.attnotnull
            )
        ) THEN
            EXECUTE format(
                'CREATE TRIGGER stream_relay_wake_update AFTER UPDATE ON %s FOR EACH STATEMENT '
                'EXECUTE FUNCTION stream_relay.wake(%L)', target, current_setting('stream_relay.channel')
            );
        END IF;
    END LOOP;
END
$$;
