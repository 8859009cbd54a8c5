-- One key, with the revision that a change of it needs.
SELECT members::text AS members, revision FROM stream_relay.keys WHERE id = $1
