"""Live rounds: from the log, through the hub, to every link that wants them."""
