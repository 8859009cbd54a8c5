"""The backend ``postgres-notify``: rounds read from the table, woken by NOTIFY."""
