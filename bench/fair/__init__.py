"""One key's readers of history beside another key's crowd."""
