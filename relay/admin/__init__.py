"""Administration: changes of keys, the audit log of them, and the credentials of those who make them."""
