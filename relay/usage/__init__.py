"""What each key uses: counted per process, and reported to NATS."""
