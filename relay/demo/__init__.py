"""``stream-relay dev``: the whole product on one machine, on real embedded parts. Nothing of it runs in production."""
