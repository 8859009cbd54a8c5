-- Whether no two rows of the table can have the same columns $1: a unique index covers only some of these.
SELECT EXISTS (
    SELECT
    FROM pg_catalog.pg_index AS i
    INNER JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid
    INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE
        n.nspname = :'schema' AND c.relname = :'table'
        AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
        AND (
            SELECT array_agg(a.attname::text)
            FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (number, place)
            INNER JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.number
            WHERE k.place <= i.indnkeyatts
        ) <@ $1::text[]
)
