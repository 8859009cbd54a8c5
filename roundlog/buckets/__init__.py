"""Key-value buckets in JetStream: requests, and following one without state in the server."""
