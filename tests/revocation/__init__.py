"""Keys that are taken back while their links are open, on two relays and over all protocols."""
