-- The size of all WAL files on the server; requires pg_monitor.
SELECT sum(w.size)::bigint FROM pg_catalog.pg_ls_waldir() AS w
