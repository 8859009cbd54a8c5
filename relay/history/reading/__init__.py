"""Reading the log: pages, which readers share, and how much of them is held."""
