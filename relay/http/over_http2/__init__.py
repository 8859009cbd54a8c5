"""REST, event streams and all else of the HTTP port over HTTP/2: each stream is served as a connection of HTTP/1.1."""
