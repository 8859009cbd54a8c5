"""Where rounds come from."""
