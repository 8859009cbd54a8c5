-- Keep a table as it is until the transaction ends, for readers only. Run before the first query of a transaction with one
-- snapshot: rows that ALTER TABLE has rewritten, or TRUNCATE deleted, after the snapshot would look as if there were none.
LOCK TABLE :"schema".:"table" IN ACCESS SHARE MODE
