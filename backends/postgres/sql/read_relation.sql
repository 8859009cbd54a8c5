-- What there is by the name of a table, as `relkind`; the tables that it reads, if it is a view; and, if it is no table,
-- tables of that name in other schemas, or in other letters.
WITH named (oid, kind) AS (
    SELECT
        c.oid,
        c.relkind::text
    FROM pg_catalog.pg_class AS c
    INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = :'schema' AND c.relname = :'table'
)

SELECT
    (SELECT kind FROM named) AS kind,
    (
        SELECT string_agg(DISTINCT d.refobjid::regclass::text, ', ')
        FROM named
        INNER JOIN pg_catalog.pg_rewrite AS r ON r.ev_class = named.oid
        INNER JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
        INNER JOIN pg_catalog.pg_class AS c ON d.refclassid = 'pg_class'::regclass AND c.oid = d.refobjid
        WHERE d.refobjid <> named.oid AND c.relkind IN ('r', 'p')
    ) AS tables_read,
    (
        SELECT string_agg(s.name, ', ')
        FROM (
            SELECT concat(n.nspname, '.', c.relname) AS name
            FROM pg_catalog.pg_class AS c
            INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            WHERE
                lower(c.relname) = lower(:'table') AND c.relkind IN ('r', 'p') AND NOT c.relispartition
                AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\_%'
            ORDER BY 1
            LIMIT 5
        ) AS s
    ) AS others
