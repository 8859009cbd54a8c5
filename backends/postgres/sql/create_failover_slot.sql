-- Create the slot as create_slot.sql does, and synchronise it to physical standbys. PostgreSQL 17 and later.
SELECT lsn FROM pg_catalog.pg_create_logical_replication_slot(:'slot', 'pgoutput', false, false, true)
