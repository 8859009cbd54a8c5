-- Keep others from making the same slot at the same time, until this connection is closed.
-- Two processes that start together would otherwise each find the work of the other half done.
SELECT pg_catalog.pg_advisory_lock(pg_catalog.hashtext('stream-relay'), pg_catalog.hashtext(:'slot'))
