-- End our own former connection, which the server has not noticed to be dead, so that it lets the slot go.
SELECT pg_catalog.pg_terminate_backend(:'pid'::integer)
