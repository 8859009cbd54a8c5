"""The commands `backend init` and `backend preview`: find the rounds in a database, and show what they become."""
