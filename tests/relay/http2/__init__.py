"""Tests of `relay.http2`: without sockets, except in `test_real_sockets` and `test_conformance`."""
