-- Change a key. No row comes back when it has another revision, or is gone.
UPDATE stream_relay.keys SET members = $2::text::jsonb WHERE id = $1 AND revision = $3
RETURNING revision
