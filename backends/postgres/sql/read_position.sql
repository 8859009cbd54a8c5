-- The offset of a reader: the lowest id it may read, and the id after which it starts. No row: it has never run.
-- As JSON, since a setup of an older version made no column `identity`.
SELECT p.lowest, p.safe, to_jsonb(p) ->> 'identity' AS identity
FROM stream_relay.positions AS p
WHERE p.consumer = $1 AND p.source = $2
