"""What a publication sends of the tables of rounds: the facts, what is missing, and whether it was changed."""
