-- Release the lock of try_lead.sql.
SELECT pg_catalog.pg_advisory_unlock(pg_catalog.hashtextextended($1, 0))
