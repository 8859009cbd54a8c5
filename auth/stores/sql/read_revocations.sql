-- Every revocation that still refuses something.
SELECT what, value, members::text AS members FROM stream_relay.revocations WHERE until > now()
