"""Who may connect: each credential over each protocol, to each game, from each origin."""
