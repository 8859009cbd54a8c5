-- Whether row level security hides rows of table $1 from our role: it is active for us, and no policy shows us all rows.
-- If it is not active, the session fails queries that it would hide rows from, from now on ($2: in this session); it may
-- be enabled at any time.
WITH found AS (
    SELECT
        pg_catalog.row_security_active(c.oid) AS is_active,
        EXISTS (
            SELECT FROM pg_catalog.pg_policy AS p
            WHERE
                p.polrelid = c.oid AND p.polpermissive AND p.polcmd IN ('r', '*')
                AND pg_catalog.pg_get_expr(p.polqual, p.polrelid) = 'true' AND (
                    0::oid = ANY(p.polroles)
                    OR EXISTS (SELECT FROM unnest(p.polroles) AS r (oid) WHERE pg_catalog.pg_has_role(r.oid, 'USAGE'))
                )
        ) AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_policy AS p
            WHERE p.polrelid = c.oid AND NOT p.polpermissive AND p.polcmd IN ('r', '*')
        ) AS shows_all
    FROM pg_catalog.pg_class AS c
    WHERE c.oid = to_regclass($1::text)
)

SELECT
    found.is_active,
    found.shows_all,
    current_user::text AS role,
    CASE
        WHEN $2::boolean
            THEN pg_catalog.set_config('row_security', CASE WHEN found.is_active THEN 'on' ELSE 'off' END, FALSE)
    END AS row_security
FROM found
