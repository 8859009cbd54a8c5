-- The settings that logical replication requires.
SELECT
    current_setting('server_version_num')::integer AS version,
    current_setting('wal_level') AS wal_level
