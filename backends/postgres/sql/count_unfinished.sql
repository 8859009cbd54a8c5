-- How many unfinished rows are stored with the offset of a reader.
SELECT count(*) FROM stream_relay.unfinished AS u WHERE u.consumer = $1 AND u.source = $2
