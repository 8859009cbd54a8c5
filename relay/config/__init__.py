"""Settings: their sections, where values come from, and the files that they name."""
