-- Write a message for the slot to advance to, where other tables write the log and the table of rounds is idle.
-- Not transactional: it takes no transaction id.
SELECT pg_catalog.pg_logical_emit_message(false, 'stream-relay', '')
