-- The sessions that the process waits for, the oldest transaction first; NULL: our role may not see the value.
SELECT
    b.pid,
    a.usename,
    a.application_name,
    round(extract(EPOCH FROM clock_timestamp() - a.xact_start))::bigint AS open_s
FROM unnest(pg_catalog.pg_blocking_pids(:'pid'::integer)) AS b (pid)
LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = b.pid
ORDER BY a.xact_start ASC NULLS LAST
