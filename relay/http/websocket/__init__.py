"""WebSocket: handshake, frames, and its links."""
