-- Stop notifying readers of the table, and delete this reader's offset. With the last offset, drop everything of ours.
DROP TRIGGER IF EXISTS stream_relay_wake ON :"schema".:"table";

DELETE FROM stream_relay.positions WHERE consumer = :'consumer' AND source = :'source';

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM stream_relay.positions) THEN
        -- Without CASCADE, so that this fails while another table has the trigger.
        DROP FUNCTION stream_relay.wake();
        DROP TABLE stream_relay.positions;
        DROP SCHEMA stream_relay;
    END IF;
EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
    NULL;
END
$$;
