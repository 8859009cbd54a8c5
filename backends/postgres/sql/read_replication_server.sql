-- Whether the server can take one more reader by logical replication, and whether our role may be one.
SELECT
    current_setting('server_version_num')::integer AS version,
    current_setting('wal_level') AS wal_level,
    current_setting('max_replication_slots')::integer - (
        SELECT count(*) FROM pg_catalog.pg_replication_slots
    )::integer AS free_slots,
    current_setting('max_wal_senders')::integer - (
        SELECT count(*) FROM pg_catalog.pg_stat_replication
    )::integer AS free_senders,
    r.rolsuper OR r.rolreplication OR EXISTS (
        -- Managed databases grant replication through a role of their own.
        SELECT FROM pg_catalog.pg_roles AS m
        WHERE m.rolname IN ('rds_replication', 'azure_pg_admin', 'alloydbsuperuser')
            AND pg_catalog.pg_has_role(r.oid, m.oid, 'MEMBER')
    ) AS may_replicate,
    r.rolname AS role
FROM pg_catalog.pg_roles AS r
WHERE r.rolname = current_user
