-- As create_slot.sql, and keep it on physical standbys that synchronise slots, from PostgreSQL 17 on.
SELECT lsn FROM pg_catalog.pg_create_logical_replication_slot(:'slot', 'pgoutput', false, false, true)
