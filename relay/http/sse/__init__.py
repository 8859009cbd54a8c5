"""Server-sent events: what is known of a client, and its links."""
