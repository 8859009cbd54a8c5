"""The gRPC service over plain HTTP: the Connect protocol and gRPC-Web."""
