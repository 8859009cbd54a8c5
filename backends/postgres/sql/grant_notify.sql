-- Grant the role of ingest what it needs: to read the table of rounds, and to store its offset.
GRANT USAGE ON SCHEMA :"schema", stream_relay TO :"role";
GRANT SELECT ON :"schema".:"table" TO :"role";
GRANT SELECT, INSERT, UPDATE ON stream_relay.positions TO :"role";
