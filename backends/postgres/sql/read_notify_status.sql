-- The offset of the reader, its process, and how many rows it has not confirmed; no row: it has never run.
SELECT
    p.safe,
    extract(EPOCH FROM clock_timestamp() - p.updated_at)::float8 AS kept_s,
    (SELECT count(*) FROM (
        SELECT FROM :"schema".:"table" AS t WHERE t.:"order_column" > p.safe LIMIT 100000
    ) AS later) AS lag_rows,
    greatest(p.safe, (SELECT max(t.:"order_column")::bigint FROM :"schema".:"table" AS t)) AS newest,
    a.pid AS active_pid,
    host(a.client_addr) AS client
FROM stream_relay.positions AS p
LEFT JOIN pg_catalog.pg_stat_activity AS a
    ON a.application_name = 'stream-relay keeper' AND a.datname = current_database()
WHERE p.consumer = :'consumer' AND p.source = :'source'
