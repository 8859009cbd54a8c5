-- The tables of rounds, and what a publication sends of them, as one JSON object; `oid` is null: no such publication.
-- `members` are a table and its children by INHERITS, whose rows count as rows of the table. Without
-- publish_via_partition_root the rows of a partitioned table are sent under the names of its partitions, so
-- pg_publication_tables does not list the table. `row` and the numbers after a colon are the versions of catalogue rows:
-- they change whenever the row is changed, also when it is changed back. `attached` are partitions and children that
-- became part of a table since the oldest transaction that the slot may still have to decode.
-- Columns that only some versions have are read through JSON, and tables are joined by name: a cast to regclass needs
-- a right on the schema.
WITH RECURSIVE wanted AS (
    SELECT w.schema_name, w.table_name, c.oid
    FROM json_to_recordset(:'tables') AS w (schema_name text, table_name text)
    LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = w.schema_name
    LEFT JOIN pg_catalog.pg_class AS c
        ON c.relnamespace = n.oid AND c.relname = w.table_name AND c.relkind IN ('r', 'p')
),

tree AS (
    SELECT
        w.oid AS table_oid,
        w.oid,
        w.oid AS member_oid,
        NULL::xid AS attached_by
    FROM wanted AS w WHERE w.oid IS NOT NULL
    UNION
    SELECT
        t.table_oid,
        i.inhrelid,
        CASE WHEN c.relispartition THEN t.member_oid ELSE i.inhrelid END,
        i.xmin
    FROM tree AS t
    INNER JOIN pg_catalog.pg_inherits AS i ON i.inhparent = t.oid
    INNER JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
),

relations AS (
    SELECT
        t.table_oid,
        t.oid,
        t.member_oid,
        t.attached_by,
        n.nspname,
        c.relname,
        c.relkind,
        c.relreplident,
        c.relpersistence,
        c.relnamespace
    FROM tree AS t
    INNER JOIN pg_catalog.pg_class AS c ON c.oid = t.oid
    INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
),

published AS (
    SELECT
        t.schemaname,
        t.tablename,
        to_jsonb(t) -> 'attnames' AS columns,
        to_jsonb(t) ->> 'rowfilter' AS row_filter
    FROM pg_catalog.pg_publication_tables AS t
    WHERE t.pubname = :'publication'
),

slot AS (
    SELECT s.catalog_xmin FROM pg_catalog.pg_replication_slots AS s WHERE s.slot_name = :'slot'
)

SELECT
    json_build_object(
        'version', current_setting('server_version_num')::integer,
        'oid', p.oid::bigint,
        'row', p.xmin::text,
        'inserts', coalesce(p.pubinsert, FALSE),
        'updates', coalesce(p.pubupdate, FALSE),
        'deletes', coalesce(p.pubdelete, FALSE),
        'via_root', coalesce(p.pubviaroot, FALSE),
        'all_tables', coalesce(p.puballtables, FALSE),
        'tables', coalesce((
            SELECT json_agg(json_build_object(
                'schema_name', w.schema_name,
                'table_name', w.table_name,
                'oid', w.oid::bigint,
                'columns', coalesce((
                    SELECT json_agg(json_build_object(
                        'name', a.attname,
                        'type_oid', a.atttypid::bigint,
                        'generated', a.attgenerated::text,
                        'not_null', a.attnotnull
                    ) ORDER BY a.attnum)
                    FROM pg_catalog.pg_attribute AS a
                    WHERE a.attrelid = w.oid AND a.attnum > 0 AND NOT a.attisdropped
                ), '[]'),
                'members', coalesce((
                    SELECT json_agg(json_build_object(
                        'oid', m.oid::bigint,
                        'schema_name', m.nspname,
                        'table_name', m.relname,
                        'is_partitioned', m.relkind = 'p',
                        'is_published', s.tablename IS NOT NULL,
                        'columns', s.columns,
                        'row_filter', s.row_filter,
                        'placed', (
                            SELECT d.xmin::text
                            FROM pg_catalog.pg_depend AS d
                            WHERE
                                d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = m.oid AND d.objsubid = 0
                                AND d.refclassid = 'pg_catalog.pg_namespace'::regclass
                        ),
                        'memberships', coalesce((
                            SELECT json_agg(concat_ws(':', r.oid, r.xmin) ORDER BY r.oid)
                            FROM pg_catalog.pg_publication_rel AS r
                            WHERE
                                r.prpubid = p.oid
                                AND r.prrelid IN (
                                    SELECT m.oid
                                    UNION ALL
                                    SELECT a.relid FROM pg_catalog.pg_partition_ancestors(m.oid) AS a
                                )
                                AND to_jsonb(r) ->> 'prqual' IS NULL
                        ), '[]')
                    ) ORDER BY m.oid <> w.oid, m.nspname, m.relname)
                    FROM relations AS m
                    LEFT JOIN published AS s ON s.schemaname = m.nspname AND s.tablename = m.relname
                    WHERE m.table_oid = w.oid AND m.member_oid = m.oid
                ), '[]'),
                'leaves', coalesce((
                    SELECT json_agg(json_build_object(
                        'schema_name', l.nspname,
                        'table_name', l.relname,
                        'is_full', l.relreplident = 'f',
                        'has_identity', l.relreplident = 'f' OR EXISTS (
                            SELECT FROM pg_catalog.pg_index AS x
                            WHERE
                                x.indrelid = l.oid AND x.indisvalid AND x.indimmediate
                                AND CASE l.relreplident
                                    WHEN 'd' THEN x.indisprimary WHEN 'i' THEN x.indisreplident ELSE FALSE
                                END
                        ),
                        'is_logged', l.relpersistence = 'p'
                    ) ORDER BY l.nspname, l.relname)
                    FROM relations AS l
                    -- A partitioned table too: its replica identity says in which form old rows are sent.
                    WHERE l.table_oid = w.oid AND (l.relkind = 'r' OR l.oid = l.member_oid)
                ), '[]'),
                'attached', coalesce((
                    SELECT json_agg(json_build_object(
                        'oid', l.oid::bigint,
                        'schema_name', l.nspname,
                        'table_name', l.relname,
                        'is_child', l.member_oid = l.oid,
                        'since', CASE WHEN age(r.xmin) < age(l.attached_by) THEN r.xmin ELSE l.attached_by END::text,
                        -- NULL if it has been dropped since the query began.
                        'may_read', coalesce(
                            has_schema_privilege(l.relnamespace, 'USAGE') AND has_table_privilege(l.oid, 'SELECT'), FALSE
                        )
                    ) ORDER BY l.nspname, l.relname)
                    FROM relations AS l
                    INNER JOIN slot ON age(l.attached_by) <= age(slot.catalog_xmin)
                    LEFT JOIN pg_catalog.pg_publication_rel AS r
                        ON r.prpubid = p.oid AND r.prrelid = l.oid AND l.member_oid = l.oid
                    WHERE l.table_oid = w.oid AND l.relkind = 'r'
                ), '[]')
            ))
            FROM wanted AS w
        ), '[]')
    )::text AS facts
FROM (SELECT) AS one
LEFT JOIN pg_catalog.pg_publication AS p ON p.pubname = :'publication'
