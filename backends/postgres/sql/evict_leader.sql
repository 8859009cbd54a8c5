-- End the session of a reader that has been silent for $2 seconds: it is frozen, or its connection broke unnoticed.
-- A live reader runs a query every few seconds. A role may end sessions of its own without further rights.
SELECT pg_catalog.pg_terminate_backend(a.pid) AS evicted
FROM pg_catalog.pg_locks AS l
INNER JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
CROSS JOIN pg_catalog.hashtextextended($1, 0) AS k
WHERE
    l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
    AND l.classid::bigint = (k >> 32) & 4294967295
    AND l.objid::bigint = k & 4294967295
    AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
    AND a.state = 'idle'
    AND a.state_change < clock_timestamp() - make_interval(secs => $2)
