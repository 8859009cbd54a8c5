-- Begin after id $3, and never look below it. Once: no row comes back to whoever is second.
INSERT INTO stream_relay.positions (consumer, source, lowest, safe) VALUES ($1, $2, $3, $3)
ON CONFLICT (consumer, source) DO NOTHING
RETURNING safe
