-- Let one process at a time create the slot; the lock is held until the connection is closed.
-- Otherwise two processes that start together could each find the publication or the slot of the other, but not both.
SELECT pg_catalog.pg_advisory_lock(pg_catalog.hashtext('stream-relay'), pg_catalog.hashtext(:'slot'))
