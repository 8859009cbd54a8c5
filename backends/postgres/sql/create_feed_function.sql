-- Create the function of the triggers of one table. Their first argument says what to copy: new, old, both; moved: the old
-- row is only remembered, and added to the next row of the transaction with the same key, for which the argument is
-- inserted. It was moved to another partition, which is a DELETE and an INSERT, or replaced. held, replaced and release are
-- the same where deleted rows are copied, too: a row that is not replaced is added when the next one is deleted, or at the
-- end of the transaction.
-- Values have the form that pgoutput gives them: written by the output functions of their types, with the settings of a
-- replication connection. It calls no casts: it runs as its owner, and a cast may be code of the owner of a type.
-- The handler writes nothing, so it costs no transaction id. A row that it cannot copy is added with the error. What is
-- rare is left to feed_put, since each expression here is prepared once in every transaction.
CREATE OR REPLACE FUNCTION stream_relay.:"function"() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET "DateStyle" = 'ISO, YMD'
SET "TimeZone" = 'UTC'
SET "IntervalStyle" = 'postgres'
SET extra_float_digits = 1
SET bytea_output = 'hex'
SET lc_monetary = 'C'
AS $function$
DECLARE
    before json;
    after json;
    moved json;
    fault text;
    placed bigint;
BEGIN
    BEGIN
        IF TG_ARGV[0] = 'new' THEN
            after := :new_values;
        ELSIF TG_ARGV[0] = 'moved' THEN
            before := :old_values;
            PERFORM set_config(:'memory', before::text, true);
            RETURN NULL;
        ELSIF TG_ARGV[0] = 'held' THEN
            before := nullif(current_setting(:'memory', true), '')::json;
            moved := :old_values;
            PERFORM set_config(:'memory', moved::text, true);
            IF before IS NULL THEN
                RETURN NULL;
            END IF;
        ELSIF TG_ARGV[0] = 'replaced' THEN
            after := :new_values;
            moved := nullif(current_setting(:'memory', true), '')::json;
            IF :is_same_key THEN
                before := moved;
                PERFORM set_config(:'memory', '', true);
            END IF;
        ELSIF TG_ARGV[0] = 'release' THEN
            before := nullif(current_setting(:'memory', true), '')::json;
            IF before IS NULL THEN
                RETURN NULL;
            END IF;
            PERFORM set_config(:'memory', '', true);
        ELSIF TG_ARGV[0] = 'inserted' THEN
            after := :new_values;
            moved := nullif(current_setting(:'memory', true), '')::json;
            IF :is_same_key THEN
                before := moved;
            END IF;
            PERFORM set_config(:'memory', '', true);
        ELSE
            before := :old_values;
            IF TG_ARGV[0] = 'both' THEN
                after := :new_values;
                IF before::text = after::text THEN
                    RETURN NULL;
                END IF;
            END IF;
        END IF;
    EXCEPTION WHEN OTHERS THEN
        fault := format('the trigger could not read the row: %s (%s)', SQLERRM, SQLSTATE);
        before := NULL;
        after := NULL;
    END;
    IF
        coalesce(octet_length(before::text), 0) + coalesce(octet_length(after::text), 0) <= 8388608
        AND to_regclass('stream_relay.feed') IS NOT NULL
    THEN
        INSERT INTO stream_relay.feed (source, old, new, error) VALUES (:'source', before, after, fault)
        ON CONFLICT DO NOTHING RETURNING seq INTO placed;
    END IF;
    IF placed IS NULL OR placed % 10000 = 0 THEN
        PERFORM stream_relay.feed_put(:'source', before, after, fault, placed);
    END IF;
    RETURN NULL;
END
$function$;

-- Otherwise a role could fill the feed from a table of its own. Writers need no right on a function of a trigger.
REVOKE ALL ON FUNCTION stream_relay.:"function"() FROM PUBLIC
