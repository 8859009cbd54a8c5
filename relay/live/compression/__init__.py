"""Streams that many links share and that are compressed as one: windows, and the links that are in step with them."""
