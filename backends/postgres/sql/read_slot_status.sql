-- How the slot stands and who reads it; no row: there is no such slot. What is not confirmed is what the server keeps.
SELECT
    s.active,
    s.wal_status,
    s.confirmed_flush_lsn::text AS confirmed,
    pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.confirmed_flush_lsn)::bigint AS lag_bytes,
    pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.restart_lsn)::bigint AS kept_bytes,
    s.safe_wal_size AS left_bytes,
    s.active_pid,
    host(r.client_addr) AS client,
    r.application_name AS application,
    extract(EPOCH FROM coalesce(r.flush_lag, '0'))::float8 AS lag_s,
    extract(EPOCH FROM clock_timestamp() - r.reply_time)::float8 AS heard_s
FROM pg_catalog.pg_replication_slots AS s
LEFT JOIN pg_catalog.pg_stat_replication AS r ON r.pid = s.active_pid
WHERE s.slot_name = :'slot'
