"""Which of many filters a round may match, without running each."""
