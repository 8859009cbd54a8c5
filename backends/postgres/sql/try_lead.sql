-- Be the one reader, for as long as this session lasts; false while another is.
SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended($1, 0)) AS leads
