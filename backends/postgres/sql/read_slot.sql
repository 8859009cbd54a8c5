-- What the server knows of one replication slot; no row: there is none.
-- The whole row, since its columns differ between versions: invalidation_reason is of 17.
SELECT
    s.*,
    current_database() AS our_database
FROM pg_catalog.pg_replication_slots AS s
WHERE s.slot_name = :'slot'
