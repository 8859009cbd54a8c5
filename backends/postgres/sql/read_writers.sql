-- Transactions that may have rows for the table which nobody can see yet: whoever holds the lock that INSERT takes, on
-- the table or a partition. To be asked after the scan that saw a hole. Prepared transactions are among them.
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
