-- Grant the role of ingest what it needs: to read the feed, to delete what is stored, and to store its offset.
GRANT USAGE ON SCHEMA stream_relay TO :"role";
GRANT SELECT, DELETE ON stream_relay.feed TO :"role";
GRANT SELECT ON SEQUENCE stream_relay.feed_seq_seq TO :"role";
GRANT SELECT, INSERT, UPDATE ON stream_relay.positions TO :"role";
