"""The audit log: its entries, the streams that keep them, and the refused credentials that relays report to it."""
