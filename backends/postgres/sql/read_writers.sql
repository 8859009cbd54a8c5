-- Transactions that may have uncommitted rows in the table: those that hold the lock of an INSERT on it, a partition or a
-- child. Not by pg_partition_tree, which knows no child made with INHERITS.
-- Run it after the scan that found a hole. Prepared transactions are included.
WITH RECURSIVE tree (relid) AS (
    SELECT $1::text::regclass::oid
    UNION
    SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i INNER JOIN tree ON tree.relid = i.inhparent
)

SELECT DISTINCT l.virtualtransaction
FROM pg_catalog.pg_locks AS l
WHERE
    l.locktype = 'relation'
    AND l.mode = 'RowExclusiveLock'
    AND l.granted
    AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
    AND l.relation IN (SELECT tree.relid FROM tree)
