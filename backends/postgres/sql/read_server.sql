-- What decides whether logical replication can work at all.
SELECT
    current_setting('server_version_num')::integer AS version,
    current_setting('wal_level') AS wal_level
