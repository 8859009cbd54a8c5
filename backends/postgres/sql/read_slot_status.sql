-- The state of the slot, its reader, and how much WAL is unconfirmed and kept; no row: no such slot.
-- inactive_since is read through JSON, since PostgreSQL 17 added it. flush_lag becomes NULL some time after everything
-- was confirmed.
SELECT
    s.active,
    s.wal_status,
    s.confirmed_flush_lsn::text AS confirmed,
    pg_catalog.pg_wal_lsn_diff(h.head, '0/0')::bigint AS head,
    pg_catalog.pg_wal_lsn_diff(h.head, s.confirmed_flush_lsn)::bigint AS lag_bytes,
    pg_catalog.pg_wal_lsn_diff(h.head, s.restart_lsn)::bigint AS kept_bytes,
    pg_catalog.pg_wal_lsn_diff(s.restart_lsn, '0/0')::bigint AS restart,
    s.restart_lsn::text AS restart_lsn,
    s.catalog_xmin::text AS catalog_xmin,
    pg_catalog.age(s.catalog_xmin) AS catalog_age,
    pg_catalog.pg_is_in_recovery() AS is_standby,
    pg_catalog.has_function_privilege('pg_catalog.pg_ls_waldir()', 'EXECUTE') AS may_list_wal,
    s.safe_wal_size AS left_bytes,
    s.active_pid,
    host(r.client_addr) AS client,
    r.application_name AS application,
    extract(EPOCH FROM r.flush_lag)::float8 AS lag_s,
    extract(EPOCH FROM clock_timestamp() - (to_jsonb(s) ->> 'inactive_since')::timestamptz)::float8 AS unread_s
FROM pg_catalog.pg_replication_slots AS s
CROSS JOIN LATERAL (
    SELECT
        CASE
            WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
            ELSE pg_catalog.pg_current_wal_lsn()
        END AS head
) AS h
LEFT JOIN pg_catalog.pg_stat_replication AS r ON r.pid = s.active_pid
WHERE s.slot_name = :'slot'
