-- The virtual generated columns of table $1. PostgreSQL 18 and later have them.
SELECT a.attname::text FROM pg_catalog.pg_attribute AS a
WHERE a.attrelid = $1::text::regclass AND a.attgenerated = 'v' AND NOT a.attisdropped
