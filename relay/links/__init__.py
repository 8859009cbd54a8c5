"""The life of a link: what it follows, and how it ends."""
