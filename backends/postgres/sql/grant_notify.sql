-- Let the role of ingest read the table of rounds and keep its offset, and nothing else.
GRANT USAGE ON SCHEMA :"schema", stream_relay TO :"role";
GRANT SELECT ON :"schema".:"table" TO :"role";
GRANT SELECT, INSERT, UPDATE ON stream_relay.positions TO :"role";
