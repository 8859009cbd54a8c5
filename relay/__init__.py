"""The relay: the process that clients connect to, and the command line."""
