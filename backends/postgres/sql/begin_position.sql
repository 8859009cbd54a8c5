-- Store a first offset: after id $3, and never read below it.
-- Only if none is stored: of two processes that start together, one stores it, and the other gets no row.
INSERT INTO stream_relay.positions (consumer, source, lowest, safe) VALUES ($1, $2, $3, $3)
ON CONFLICT (consumer, source) DO NOTHING
RETURNING safe
