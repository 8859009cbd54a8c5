-- One process at a time makes a lost slot anew; held until the session ends.
SELECT pg_catalog.pg_advisory_lock(pg_catalog.hashtextextended('stream_relay:renew:' || $1, 0))
