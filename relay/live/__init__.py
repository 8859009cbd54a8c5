"""Live rounds: from the log, through the hub, to every link that is subscribed; and the ends of links."""
