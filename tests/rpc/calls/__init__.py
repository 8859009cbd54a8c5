"""Tests of gRPC calls over HTTP/2, without a relay."""
