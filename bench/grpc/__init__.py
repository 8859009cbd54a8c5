"""gRPC: a relay beside the most that its HTTP/2 engine can do. ``python -m bench.grpc``."""
