-- Transactions that may have uncommitted rows in the table: those that hold the lock of an INSERT on it or a partition.
-- Run it after the scan that found a hole. Prepared transactions are included.
SELECT DISTINCT l.virtualtransaction
FROM pg_catalog.pg_locks AS l
WHERE
    l.locktype = 'relation'
    AND l.mode = 'RowExclusiveLock'
    AND l.granted
    AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
    AND l.relation IN (
        SELECT $1::text::regclass::oid
        UNION ALL
        SELECT p.relid::oid FROM pg_catalog.pg_partition_tree($1::text::regclass) AS p
    )
