"""The backend ``postgres-notify``: reads rounds from the table, by polling and NOTIFY."""
