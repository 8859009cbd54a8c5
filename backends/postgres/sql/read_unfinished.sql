-- The ids of the rows that a reader read before they were finished, the newest $3.
SELECT u.id
FROM stream_relay.unfinished AS u
WHERE u.consumer = $1 AND u.source = $2
ORDER BY u.id DESC
LIMIT $3
