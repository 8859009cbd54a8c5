"""Backends that read rounds from a PostgreSQL table: by logical replication, and by NOTIFY with polling."""
