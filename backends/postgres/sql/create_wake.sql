-- Notify the reader whenever a statement has inserted into the table of rounds, and create the table of offsets.
-- Without a payload: its size limit would fail the INSERT, and equal notifications of a transaction are sent once.
-- Nothing here may fail an INSERT: a full queue fails the commit, where no handler helps, so the queue is checked first;
-- the handler catches everything else. Run as the owner of the table. Safe to run again, also at once in several
-- sessions: run in one transaction, as a script sent whole is, it holds a lock, without which IF NOT EXISTS fails.
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('stream-relay'), pg_catalog.hashtext('wake'));

CREATE SCHEMA IF NOT EXISTS stream_relay;

CREATE TABLE IF NOT EXISTS stream_relay.positions (
    consumer text NOT NULL,
    source text NOT NULL,
    lowest bigint NOT NULL,
    safe bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, source)
);

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

DROP TRIGGER IF EXISTS stream_relay_wake ON :"schema".:"table";

CREATE TRIGGER stream_relay_wake AFTER INSERT ON :"schema".:"table"
FOR EACH STATEMENT EXECUTE FUNCTION stream_relay.wake(:'channel');
