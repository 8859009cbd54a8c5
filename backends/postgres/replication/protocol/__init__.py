"""The streaming replication protocol: its connection, its frames, and the messages of pgoutput."""
