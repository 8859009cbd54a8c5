-- Grant the role of ingest what it needs: to read the table of rounds, to store its offset and unfinished rows, and to see
-- how far the sequence of the ids is.
GRANT USAGE ON SCHEMA :"schema", stream_relay TO :"role";
GRANT SELECT ON :"schema".:"table" TO :"role";
GRANT SELECT, INSERT, UPDATE ON stream_relay.positions TO :"role";
GRANT SELECT, INSERT, DELETE ON stream_relay.unfinished TO :"role";

-- Variables of psql have no effect within a DO block.
SELECT
    pg_catalog.set_config('stream_relay.table', format('%I.%I', :'schema', :'table'), false),
    pg_catalog.set_config('stream_relay.order_column', :'order_column', false),
    pg_catalog.set_config('stream_relay.role', :'role', false);

DO $$
DECLARE
    sequence text := pg_catalog.pg_get_serial_sequence(
        current_setting('stream_relay.table'), current_setting('stream_relay.order_column')
    );
BEGIN
    IF sequence IS NOT NULL THEN
        EXECUTE format('GRANT SELECT ON SEQUENCE %s TO %I', sequence, current_setting('stream_relay.role'));
    END IF;
EXCEPTION WHEN insufficient_privilege OR undefined_column THEN
    NULL;  -- the sequence has another owner; that ids have begun again is seen by the newest id then
END
$$;
