"""Early answers: requests that are decided from their head, as soon as its bytes come, without the web framework."""
