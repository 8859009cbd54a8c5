-- Write a message for the slot to advance to, where others write the log and the table of rounds is idle.
-- Transactional: it takes a transaction id. Without a new one, catalog_xmin of the slot does not move, and until it
-- moves the server removes no WAL, wherever the slot is.
SELECT pg_catalog.pg_logical_emit_message(true, 'stream-relay', '')
