"""HTTP: the application, its routes, and the protocols WebSocket, SSE and REST."""
