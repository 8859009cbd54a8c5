-- Record that a reader by replication has stored every row of the feed up to $2. Never back.
INSERT INTO stream_relay.positions AS p (consumer, source, lowest, safe) VALUES ($1, 'stream_relay.feed', 0, $2)
ON CONFLICT (consumer, source) DO UPDATE SET safe = greatest(p.safe, excluded.safe), updated_at = now()
