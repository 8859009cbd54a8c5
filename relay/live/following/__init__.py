"""Following the log: live rounds in order, without loss."""
