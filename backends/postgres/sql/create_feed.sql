-- Create the feed: the table that triggers fill with finished rounds, and what a trigger's function calls in rare cases.
-- Nothing here may fail a statement of the owner: a missing table and a sequence that was set back are looked for first,
-- since a handler around the INSERT would need a subtransaction with an id of its own for each round.
-- Run by the owner of the captured tables, whose functions add rows for every writer. Safe to run again.
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('stream-relay'), pg_catalog.hashtext('wake'));

CREATE SCHEMA IF NOT EXISTS stream_relay;

CREATE TABLE IF NOT EXISTS stream_relay.positions ( :position_columns );

-- A key, so that rows can also be deleted where somebody publishes all tables. Its rows are deleted in the order of the
-- key; vacuum them by their number, since a share of a table that is nearly empty says nothing.
CREATE TABLE IF NOT EXISTS stream_relay.feed (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text NOT NULL,
    old json,
    new json,
    error text,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0);

-- The sequence is set past the offsets of readers and the rows: a restored copy may have it further back.
SELECT pg_catalog.setval(s.sequence, s.floor)
FROM (
    SELECT
        pg_catalog.pg_get_serial_sequence('stream_relay.feed', 'seq')::regclass AS sequence,
        greatest(
            (SELECT max(f.seq) FROM stream_relay.feed AS f),
            (SELECT max(p.safe) FROM stream_relay.positions AS p WHERE p.source = 'stream_relay.feed')
        ) AS floor
) AS s
WHERE s.floor > coalesce(pg_catalog.pg_sequence_last_value(s.sequence), 0);

-- What is rare: a row that the function of a trigger has not added, and every 10,000th, which it has.
CREATE OR REPLACE FUNCTION stream_relay.feed_put(source text, old json, new json, error text, placed bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before json := feed_put.old;
    after json := feed_put.new;
    fault text := feed_put.error;
    size bigint := coalesce(octet_length(before::text), 0) + coalesce(octet_length(after::text), 0);
    oldest timestamptz;
BEGIN
    IF to_regclass('stream_relay.feed') IS NULL THEN
        RAISE WARNING 'stream_relay: a change of % was not captured, since table stream_relay.feed is missing', source
            USING HINT = 'Run stream-relay backend setup --feed, or drop the triggers.';
        RETURN;
    END IF;
    IF placed IS NOT NULL THEN
        SELECT f.written_at INTO oldest FROM stream_relay.feed AS f ORDER BY f.seq LIMIT 1;
        IF oldest < now() - interval '1 day' THEN
            RAISE LOG 'stream_relay: no reader has stored the rows of stream_relay.feed since %; it grows', oldest
                USING HINT = 'Run stream-relay backend status.';
        END IF;
        RETURN;
    END IF;
    IF size > 8388608 THEN
        fault := format('the row has %s bytes; the feed takes at most 8388608', size);
        BEGIN
            SELECT json_object_agg(e.key, left(e.value, 1000)) INTO before FROM json_each_text(feed_put.old) AS e;
            SELECT json_object_agg(e.key, left(e.value, 1000)) INTO after FROM json_each_text(feed_put.new) AS e;
        EXCEPTION WHEN OTHERS THEN
            before := NULL;
            after := NULL;
        END;
    END IF;
    INSERT INTO stream_relay.feed (source, old, new, error) VALUES (feed_put.source, before, after, fault)
    ON CONFLICT DO NOTHING RETURNING seq INTO placed;
    IF placed IS NULL THEN
        -- The sequence was set back. Rows below the offset of a reader would never be read.
        PERFORM setval(pg_get_serial_sequence('stream_relay.feed', 'seq'), 1 + (
            SELECT greatest(max(f.seq), (SELECT max(p.safe) FROM stream_relay.positions AS p)) FROM stream_relay.feed AS f
        ));
        INSERT INTO stream_relay.feed (source, old, new, error) VALUES (feed_put.source, before, after, fault)
        ON CONFLICT DO NOTHING;
    END IF;
END
$$;

REVOKE ALL ON FUNCTION stream_relay.feed_put(text, json, json, text, bigint) FROM PUBLIC;
