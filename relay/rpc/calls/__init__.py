"""gRPC calls over HTTP/2, for any methods: messages, metadata, deadlines and statuses.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""
