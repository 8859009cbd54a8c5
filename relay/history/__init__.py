"""The past: pages of the log, replays that join the live stream, and queries."""
