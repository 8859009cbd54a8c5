"""What an operator's platform asks: probes and metrics."""
