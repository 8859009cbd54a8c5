-- Store the ids $3 of rows that existed and were not finished at a first start.
INSERT INTO stream_relay.unfinished (consumer, source, id)
SELECT
    $1::text,
    $2::text,
    a.id
FROM unnest($3::bigint []) AS a (id)
ON CONFLICT (consumer, source, id) DO NOTHING
