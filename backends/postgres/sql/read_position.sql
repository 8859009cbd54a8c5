-- The offset of a reader: the lowest id it may read, and the id after which it starts. No row: it has never run.
SELECT lowest, safe FROM stream_relay.positions WHERE consumer = $1 AND source = $2
