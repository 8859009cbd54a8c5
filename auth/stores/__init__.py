"""Where keys are stored: the contract of a store, and one module for each."""
