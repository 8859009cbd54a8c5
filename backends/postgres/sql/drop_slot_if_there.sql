-- Drop the slot if it exists. Fails while a reader is connected: stop ingest first.
SELECT pg_catalog.pg_drop_replication_slot(s.slot_name)
FROM pg_catalog.pg_replication_slots AS s
WHERE s.slot_name = :'slot'
