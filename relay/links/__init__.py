"""Open links: what they follow, what their clients may send, and the drain."""
