"""Guards of HTTP/2 connections: the share of each, the bytes of unfinished requests, and reports of faults."""
