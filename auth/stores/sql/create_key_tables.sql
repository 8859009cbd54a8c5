-- Make the tables of keys and revocations. Safe to run again: existing tables and their rows stay.
-- psql -f create_key_tables.sql, as the owner; then grant_key_tables.sql has the privileges of relays and of tools.
CREATE SCHEMA IF NOT EXISTS stream_relay;

CREATE SEQUENCE IF NOT EXISTS stream_relay.key_revision;

CREATE TABLE IF NOT EXISTS stream_relay.keys (
    id text PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    members jsonb NOT NULL CHECK (jsonb_typeof(members) = 'object'),
    revision bigint NOT NULL
);

CREATE TABLE IF NOT EXISTS stream_relay.revocations (
    what text NOT NULL,
    value text NOT NULL,
    members jsonb NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (what, value)
);

-- Every change gives the key another revision, also one by hand, so that no tool overwrites what it has not read.
CREATE OR REPLACE FUNCTION stream_relay.set_key_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.revision := nextval('stream_relay.key_revision');
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER set_key_revision BEFORE INSERT OR UPDATE ON stream_relay.keys
FOR EACH ROW EXECUTE FUNCTION stream_relay.set_key_revision();

-- A bare wake-up: relays then read the tables. They also look every 2 s, since a pooler may not deliver it.
CREATE OR REPLACE FUNCTION stream_relay.wake_key_readers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('stream_relay_keys', '');
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER wake_key_readers AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON stream_relay.keys
FOR EACH STATEMENT EXECUTE FUNCTION stream_relay.wake_key_readers();

CREATE OR REPLACE TRIGGER wake_key_readers AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON stream_relay.revocations
FOR EACH STATEMENT EXECUTE FUNCTION stream_relay.wake_key_readers();
