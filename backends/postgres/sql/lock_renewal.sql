-- Let one process at a time recreate a lost slot; the lock is held until the session ends.
SELECT pg_catalog.pg_advisory_lock(pg_catalog.hashtextextended('stream_relay:renew:' || $1, 0))
