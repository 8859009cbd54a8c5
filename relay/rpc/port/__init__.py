"""The gRPC port: its socket, which connections are accepted, and TLS."""
