-- Create the tables of offsets and of unfinished rows of postgres-notify.
-- Safe to run again, also at once in several sessions: run in one transaction, as a script sent whole is, it holds a lock,
-- without which IF NOT EXISTS fails.
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('stream-relay'), pg_catalog.hashtext('wake'));

CREATE SCHEMA IF NOT EXISTS stream_relay;

CREATE TABLE IF NOT EXISTS stream_relay.positions ( :position_columns );

ALTER TABLE stream_relay.positions ADD COLUMN IF NOT EXISTS identity text;

CREATE TABLE IF NOT EXISTS stream_relay.unfinished (
    consumer text NOT NULL,
    source text NOT NULL,
    id bigint NOT NULL,
    PRIMARY KEY (consumer, source, id)
);
