"""The gRPC service, and the same service over plain HTTP."""
