-- Become the one reader until this session ends; false: another session is.
SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended($1, 0)) AS leads
