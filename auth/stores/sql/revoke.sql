-- Store a revocation in place of an earlier one of the same value. In one statement: remove those that refuse nothing.
WITH expired AS (DELETE FROM stream_relay.revocations WHERE until < now() - interval '1 hour')
INSERT INTO stream_relay.revocations (what, value, members, until)
VALUES ($1, $2, $3::text::jsonb, to_timestamp($4))
ON CONFLICT (what, value) DO UPDATE SET members = excluded.members, until = excluded.until
