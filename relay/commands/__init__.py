"""The commands of ``stream-relay``: each reads its arguments and hands over. Those of a client use the public API."""
