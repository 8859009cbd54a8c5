-- The tables that a view reads.
SELECT DISTINCT d.refobjid::regclass::text AS name
FROM pg_catalog.pg_rewrite AS r
INNER JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
INNER JOIN pg_catalog.pg_class AS c ON d.refclassid = 'pg_class'::regclass AND c.oid = d.refobjid
WHERE r.ev_class = $1 AND d.refobjid <> r.ev_class AND c.relkind IN ('r', 'p')
ORDER BY 1
