-- Drop the triggers of a table and of its children, and their function.
DO $do$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT format('%I.%I', n.nspname, c.relname) AS name, t.tgname
        FROM pg_catalog.pg_trigger AS t
        INNER JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
        INNER JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
        INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE p.pronamespace = to_regnamespace('stream_relay') AND p.proname = :'function' AND t.tgparentid = 0
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', found.tgname, found.name);
    END LOOP;
    EXECUTE format('DROP FUNCTION IF EXISTS stream_relay.%I()', :'function');
EXCEPTION WHEN invalid_schema_name THEN
    NULL;
END
$do$
