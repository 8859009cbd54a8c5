-- Remove a key. No row comes back when it has another revision, or is gone.
DELETE FROM stream_relay.keys WHERE id = $1 AND revision = $2
RETURNING revision
