-- A new key. No row comes back when there is one of this id.
INSERT INTO stream_relay.keys (id, members, revision) VALUES ($1, $2::text::jsonb, 0)
ON CONFLICT (id) DO NOTHING
RETURNING revision
