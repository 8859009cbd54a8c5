-- One replication slot as the server describes it; no row: no such slot.
-- All columns, since they differ between versions: PostgreSQL 17 added invalidation_reason.
SELECT
    s.*,
    current_database() AS our_database
FROM pg_catalog.pg_replication_slots AS s
WHERE s.slot_name = :'slot'
