"""The mapping from rows of any table to rounds."""
