"""The backend ``postgres-replication``: rounds from the write-ahead log."""
