-- Advance the offset, never back: a process that was frozen may write an old one. The same for the lowest id.
UPDATE stream_relay.positions
SET safe = greatest(safe, $3), lowest = greatest(lowest, $4), updated_at = now()
WHERE consumer = $1 AND source = $2
