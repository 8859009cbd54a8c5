"""The ingest process: one backend into the log, with its metrics, recovery and backfill."""
