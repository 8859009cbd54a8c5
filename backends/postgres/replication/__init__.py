"""The backend ``postgres-replication``: reads rounds from the write-ahead log, by logical replication."""
