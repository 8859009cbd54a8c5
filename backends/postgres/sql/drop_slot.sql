-- Drop the slot. Rounds that were not captured from it then have to come from the table.
SELECT pg_catalog.pg_drop_replication_slot(:'slot')
