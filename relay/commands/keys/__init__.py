"""The commands that change keys, admin credentials and revocations, and show the audit log and usage."""
