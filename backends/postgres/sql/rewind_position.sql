-- Set the offset back: the ids of the table have begun again. Which of the stored unfinished rows are gone is seen later.
UPDATE stream_relay.positions
SET safe = $3, lowest = least(lowest, $3), updated_at = now()
WHERE consumer = $1 AND source = $2
