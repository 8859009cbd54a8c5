-- Move on, never back: a process that was frozen may come late with an old offset. The same for what is never looked at.
UPDATE stream_relay.positions
SET safe = greatest(safe, $3), lowest = greatest(lowest, $4), updated_at = now()
WHERE consumer = $1 AND source = $2
