-- The server and the database that we are connected to, for `stream-relay backend init` and `check`.
SELECT
    current_setting('server_version_num')::integer AS version,
    current_setting('wal_level') AS wal_level,
    pg_catalog.pg_is_in_recovery() AS is_standby,
    pg_catalog.pg_encoding_to_char(d.encoding)::text AS encoding,
    current_user::text AS role,
    d.datname::text AS database
FROM pg_catalog.pg_database AS d
WHERE d.datname = current_database()
