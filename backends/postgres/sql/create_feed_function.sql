-- Create the function of the triggers of one table. Their first argument names the row to copy: old, new or both; moved:
-- the old one is only remembered, until the next statement of the transaction inserts a row with the same key. It was
-- moved to another partition, which is a DELETE and an INSERT, or replaced.
-- Values have the form that pgoutput gives them: written by the output functions of their types, with the settings of a
-- replication connection. It calls no casts: it runs as its owner, and a cast may be code of the owner of a type.
-- The handler writes nothing, so it costs no transaction id. A row that it cannot copy is added with the error.
CREATE OR REPLACE FUNCTION stream_relay.:"function"() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET "DateStyle" = 'ISO, YMD'
SET "TimeZone" = 'UTC'
SET "IntervalStyle" = 'postgres'
SET extra_float_digits = 1
SET bytea_output = 'hex'
SET xmlbinary = 'base64'
SET lc_monetary = 'C'
AS $function$
DECLARE
    before json;
    after json;
    moved json;
    fault text;
    size bigint;
BEGIN
    BEGIN
        IF TG_ARGV[0] <> 'new' THEN
            before := :old_values;
        END IF;
        IF TG_ARGV[0] <> 'old' THEN
            after := :new_values;
        END IF;
        IF TG_ARGV[0] = 'moved' THEN
            PERFORM set_config(:'memory', before::text, true);
            RETURN NULL;
        END IF;
        IF TG_OP = 'INSERT' AND :has_moves THEN
            moved := nullif(current_setting(:'memory', true), '')::json;
            IF :is_same_key THEN
                before := moved;
            END IF;
            PERFORM set_config(:'memory', '', true);
        END IF;
        size := coalesce(octet_length(before::text), 0) + coalesce(octet_length(after::text), 0);
        IF size > 8388608 THEN
            fault := format('the row has %s bytes; the feed takes at most 8388608', size);
            SELECT json_object_agg(e.key, left(e.value, 1000)) INTO before FROM json_each_text(before) AS e;
            SELECT json_object_agg(e.key, left(e.value, 1000)) INTO after FROM json_each_text(after) AS e;
        END IF;
    EXCEPTION WHEN OTHERS THEN
        fault := format('the trigger could not read the row: %s (%s)', SQLERRM, SQLSTATE);
        before := NULL;
        after := NULL;
    END;
    PERFORM stream_relay.feed_put(:'source', before, after, fault);
    RETURN NULL;
END
$function$
