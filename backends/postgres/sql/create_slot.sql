-- Keep the write-ahead log from here on for us. Waits for the end of every transaction that is open now.
SELECT lsn FROM pg_catalog.pg_create_logical_replication_slot(:'slot', 'pgoutput')
