-- Decode what the slot holds as a stream would, some 100,000 rows of it at most, and leave it there.
SELECT count(*) FROM pg_catalog.pg_logical_slot_peek_binary_changes(
    :'slot', NULL, 100000, 'proto_version', '1', 'publication_names', :'publications'
)
