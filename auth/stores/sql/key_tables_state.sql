-- A number that is another one after any change of either table, by any means: xmin is the transaction that wrote a row.
SELECT
    (SELECT count(*) || ':' || coalesce(bit_xor(hashtextextended(id || ' ' || xmin, 0)), 0) FROM stream_relay.keys)
    || '/' ||
    (SELECT count(*) || ':' || coalesce(bit_xor(hashtextextended(what || ' ' || value || ' ' || xmin, 0)), 0)
     FROM stream_relay.revocations)
