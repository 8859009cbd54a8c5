-- Stop waking readers of the table, and forget this reader's offset. Once no table is woken for, everything of ours goes.
DROP TRIGGER IF EXISTS stream_relay_wake ON :"schema".:"table";

DELETE FROM stream_relay.positions WHERE consumer = :'consumer' AND source = :'source';

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM stream_relay.positions) THEN
        -- Without CASCADE: the trigger of another table that still wakes somebody makes this fail, as it should.
        DROP FUNCTION stream_relay.wake();
        DROP TABLE stream_relay.positions;
        DROP SCHEMA stream_relay;
    END IF;
EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
    NULL;
END
$$;
