"""Methods of the gRPC port that need no key: health and reflection, within the share of strangers."""
