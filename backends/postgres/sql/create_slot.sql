-- Keep the write-ahead log from here on. Waits until all open transactions have ended.
SELECT lsn FROM pg_catalog.pg_create_logical_replication_slot(:'slot', 'pgoutput')
