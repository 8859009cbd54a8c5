-- Which transactions are running, and how far the log is written. Transactions below `xmin` had ended before `lsn`.
SELECT
    pg_catalog.pg_snapshot_xmin(s.now)::text::bigint AS xmin,
    pg_catalog.pg_snapshot_xmax(s.now)::text::bigint AS xmax,
    (pg_catalog.pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint AS lsn
FROM (SELECT pg_catalog.pg_current_snapshot() AS now) AS s
