-- Delete a reader's offset in the feed. Drop the feed when no table fills it any more, and with the last offset all of
-- ours.
DO $do$
BEGIN
    IF to_regclass('stream_relay.positions') IS NOT NULL THEN
        DELETE FROM stream_relay.positions WHERE consumer = :'consumer' AND source = 'stream_relay.feed';
    END IF;
    IF EXISTS (
        SELECT FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = to_regnamespace('stream_relay') AND p.proname ~ '^feed_[0-9a-f]{16}$'
    ) THEN
        RETURN;
    END IF;
    DROP TABLE IF EXISTS stream_relay.feed;
    DROP FUNCTION IF EXISTS stream_relay.feed_put(text, json, json, text, bigint);
    IF to_regclass('stream_relay.positions') IS NOT NULL AND NOT EXISTS (SELECT FROM stream_relay.positions) THEN
        BEGIN
            -- Without CASCADE, so that this fails while a table has the trigger for notifications.
            DROP FUNCTION IF EXISTS stream_relay.wake();
            DROP TABLE IF EXISTS stream_relay.unfinished;
            DROP TABLE stream_relay.positions;
            DROP SCHEMA stream_relay;
        EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
            NULL;
        END;
    END IF;
END
$do$
