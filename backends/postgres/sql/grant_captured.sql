-- Grant the role of ingest to read a table that fills the feed, its columns at a start and its rows for a backfill; or a
-- table of games.
GRANT USAGE ON SCHEMA :"schema" TO :"role";
GRANT SELECT ON :"schema".:"table" TO :"role";
