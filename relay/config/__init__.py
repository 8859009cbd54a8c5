"""Settings: their sections, the sources of their values, and the files that they name."""
