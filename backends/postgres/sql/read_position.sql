-- Where a reader is: never below lowest, on from safe. No row: it has never run.
SELECT lowest, safe FROM stream_relay.positions WHERE consumer = $1 AND source = $2
