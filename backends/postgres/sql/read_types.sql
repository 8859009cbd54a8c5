-- The types of a table's columns with what they are made of: domains resolved, and the element of an array.
-- An array is what array_in reads: int2vector and oidvector have another form.
WITH RECURSIVE bases AS (
    SELECT
        t.oid AS own,
        t.oid,
        CASE WHEN t.typtype = 'd' THEN t.typbasetype END AS below,
        CASE WHEN t.typinput = 'array_in'::regproc AND t.typtype <> 'd' THEN t.typelem END AS element,
        t.typdelim
    FROM pg_catalog.pg_type AS t
    WHERE t.oid IN (
        SELECT a.atttypid
        FROM pg_catalog.pg_attribute AS a
        INNER JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
        INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = :'schema' AND c.relname = :'table' AND a.attnum > 0 AND NOT a.attisdropped
    )
    UNION ALL
    SELECT
        b.own,
        t.oid,
        CASE WHEN t.typtype = 'd' THEN t.typbasetype END AS below,
        CASE WHEN t.typinput = 'array_in'::regproc AND t.typtype <> 'd' THEN t.typelem END AS element,
        t.typdelim
    FROM bases AS b
    INNER JOIN pg_catalog.pg_type AS t ON t.oid = coalesce(b.below, b.element)
)

SELECT
    b.own::bigint AS type_oid,
    bool_or(b.element IS NOT NULL) AS is_array,
    max(b.oid::bigint) FILTER (WHERE b.below IS NULL AND b.element IS NULL) AS base_oid,
    max(b.typdelim::text) FILTER (WHERE b.below IS NULL AND b.element IS NULL) AS delimiter
FROM bases AS b
GROUP BY b.own
