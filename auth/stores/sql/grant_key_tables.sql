-- The privileges of relays, which only read, and of tools, which also write. Names no role that can read other tables.
-- psql -v relay=relay_keys -v tools=relay_admin -f grant_key_tables.sql
GRANT USAGE ON SCHEMA stream_relay TO :"relay", :"tools";
GRANT SELECT ON stream_relay.keys, stream_relay.revocations TO :"relay", :"tools";
GRANT INSERT, UPDATE, DELETE ON stream_relay.keys, stream_relay.revocations TO :"tools";
GRANT USAGE ON SEQUENCE stream_relay.key_revision TO :"tools";
