"""Stream tokens over HTTP: the endpoint that makes them, our public keys, and sign-in by an identity provider."""
