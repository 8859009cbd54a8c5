"""gRPC: a relay beside the most that grpc.aio can do. ``python -m bench.grpc``."""
