-- Whether our role may drop and create the slot and the publication. NULL: there is no such publication or table.
SELECT
    current_user::text AS role,
    r.rolsuper OR r.rolreplication OR EXISTS (
        -- Managed databases grant replication through a role of their own.
        SELECT FROM pg_catalog.pg_roles AS m
        WHERE m.rolname IN ('rds_replication', 'azure_pg_admin', 'alloydbsuperuser')
            AND pg_catalog.pg_has_role(r.oid, m.oid, 'MEMBER')
    ) AS may_replicate,
    current_database()::text AS database,
    pg_catalog.has_database_privilege(current_database(), 'CREATE') AS may_create,
    (
        SELECT pg_catalog.pg_has_role(p.pubowner, 'USAGE') FROM pg_catalog.pg_publication AS p
        WHERE p.pubname = :'publication'
    ) AS owns_publication,
    (
        SELECT array_agg(format('%I.%I', n.nspname, c.relname))
        FROM pg_catalog.pg_class AS c
        INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE
            (n.nspname::text, c.relname::text) IN (SELECT * FROM unnest($1::text [], $2::text []))
            AND NOT pg_catalog.pg_has_role(c.relowner, 'USAGE')
    ) AS foreign_tables
FROM pg_catalog.pg_roles AS r
WHERE r.rolname = current_user
