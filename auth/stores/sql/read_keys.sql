-- Every key, in the order of ids.
SELECT id, members::text AS members FROM stream_relay.keys ORDER BY id
