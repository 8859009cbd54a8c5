-- Let the server forget what the slot held. What was not captured has to come from the table then.
SELECT pg_catalog.pg_drop_replication_slot(:'slot')
