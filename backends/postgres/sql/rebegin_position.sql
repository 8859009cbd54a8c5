-- Replace the first offset by a lower one, while no row was read: the log ends at the lower one.
UPDATE stream_relay.positions
SET safe = $3, lowest = $3, updated_at = now()
WHERE consumer = $1 AND source = $2 AND safe = lowest AND safe > $3
