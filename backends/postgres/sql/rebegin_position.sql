-- Begin lower than first thought, as long as nothing has been read: the log ends there.
UPDATE stream_relay.positions
SET safe = $3, lowest = $3, updated_at = now()
WHERE consumer = $1 AND source = $2 AND safe = lowest AND safe > $3
