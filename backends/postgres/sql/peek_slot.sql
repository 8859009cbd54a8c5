-- Decode up to about 100,000 rows of the slot as a stream would, without advancing it.
SELECT count(*) FROM pg_catalog.pg_logical_slot_peek_binary_changes(
    :'slot', NULL, 100000, 'proto_version', '1', 'publication_names', :'publications'
)
