-- Grant the role of ingest what it needs: replication, and reading the table for a backfill.
ALTER ROLE :"role" REPLICATION;
GRANT USAGE ON SCHEMA :"schema" TO :"role";
GRANT SELECT ON :"schema".:"table" TO :"role";
