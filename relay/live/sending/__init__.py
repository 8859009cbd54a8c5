"""Sending the same bytes to many links: in one loop of C where it is installed, or through each transport."""
