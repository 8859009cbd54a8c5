"""``stream-relay dev``: the whole product on one machine, with real embedded servers. Not for production."""
