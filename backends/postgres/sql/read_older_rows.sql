-- Whether a partition or a child has rows from before the transaction that made it part of its table, or of its
-- publication: they were not sent. Rows of that transaction itself count by the order of its commands.
SELECT EXISTS (
    SELECT FROM :"schema".:"table" AS r
    WHERE
        age(r.xmin) > age(:'since'::xid)
        OR (
            r.xmin = :'since'::xid AND r.cmin::text::bigint < (
                SELECT min(i.cmin::text::bigint) FROM pg_catalog.pg_inherits AS i
                WHERE i.inhrelid = :'oid'::oid AND i.xmin = :'since'::xid
            )
        )
) AS has_older
