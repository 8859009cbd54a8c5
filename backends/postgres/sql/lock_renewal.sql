-- Let one process at a time recreate a lost slot; the lock is held until the session ends. It is that of lock_setup.sql:
-- a process that starts meanwhile would otherwise create the half that was just dropped.
SELECT pg_catalog.pg_advisory_lock(pg_catalog.hashtext('stream-relay'), pg_catalog.hashtext($1))
