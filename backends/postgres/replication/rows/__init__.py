"""What a change of one row means, as pgoutput sends it, and what a logical message is."""
