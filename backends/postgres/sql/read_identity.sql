-- What shows that the ids of the table have begun again: its identity, that of its sequence and the sequence's last value
-- (NULL: no sequence, or we may not see it), the newest id, and the oldest transaction that may still be open.
-- Its children and whether row level security hides rows from us are looked at with it.
WITH RECURSIVE tree (relid) AS (
    SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i WHERE i.inhparent = to_regclass($1::text)::oid
    UNION
    SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i INNER JOIN tree ON tree.relid = i.inhparent
),

numbering (sequence, increment) AS (
    -- By the default of the column too: the sequence of a serial column may belong to another table.
    SELECT
        s.seqrelid,
        s.seqincrement
    FROM pg_catalog.pg_attribute AS a
    INNER JOIN pg_catalog.pg_depend AS d
        ON (
            d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
            AND d.classid = 'pg_class'::regclass
        ) OR (
            d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass
            AND d.objid = (
                SELECT f.oid FROM pg_catalog.pg_attrdef AS f WHERE f.adrelid = a.attrelid AND f.adnum = a.attnum
            )
        )
    INNER JOIN pg_catalog.pg_sequence AS s ON s.seqrelid IN (d.objid, d.refobjid)
    WHERE a.attrelid = to_regclass($1::text) AND a.attname = $2::text
    ORDER BY d.classid = 'pg_attrdef'::regclass DESC
    LIMIT 1
)

SELECT
    c.oid::bigint AS relation,
    (
        SELECT concat_ws('.', q.oid, pg_catalog.pg_relation_filenode(q.oid))
        FROM numbering INNER JOIN pg_catalog.pg_class AS q ON q.oid = numbering.sequence
    ) AS sequence,
    (
        SELECT CASE
            WHEN has_sequence_privilege(numbering.sequence, 'SELECT') OR has_sequence_privilege(numbering.sequence, 'USAGE')
                THEN coalesce(pg_catalog.pg_sequence_last_value(numbering.sequence), 0)
        END
        FROM numbering WHERE numbering.increment > 0
    ) AS last_value,
    pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text AS oldest_xid,
    (SELECT array_agg(tree.relid::bigint ORDER BY tree.relid) FROM tree) AS children,
    pg_catalog.row_security_active(c.oid) AS hides_rows
FROM pg_catalog.pg_class AS c
WHERE c.oid = to_regclass($1::text)
