"""The rounds in flight: which are sent next, in which order, and on which condition; what may be confirmed."""
