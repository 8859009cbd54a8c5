"""Publishing to streams: the bytes of publishes and of their acks, and connections that publish rounds."""
