-- Let the role of ingest replicate, and read the table for a backfill.
ALTER ROLE :"role" REPLICATION;
GRANT USAGE ON SCHEMA :"schema" TO :"role";
GRANT SELECT ON :"schema".:"table" TO :"role";
