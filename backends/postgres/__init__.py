"""Backends that read rounds from a PostgreSQL table: by logical replication, or by polling and NOTIFY."""
