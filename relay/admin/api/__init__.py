"""The admin API: the verbs of administration over HTTP, on a port of its own."""
