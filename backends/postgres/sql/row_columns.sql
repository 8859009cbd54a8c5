-- The columns of a row of table t, in scan_rows.sql and read_page.sql.
-- As text, since the mapper reads text: row_values is a list of columns, see mapping.table_mapper. The commit time is
-- NULL unless the server keeps commit times; commit_order is comparable within one query: the commit time, or how old the
-- transaction is, which orders rows of transactions that did not overlap.
t.:"order_column"::bigint AS row_offset,
ARRAY[ :row_values ]::text [] AS row_values,
CASE
    WHEN current_setting('track_commit_timestamp') = 'on'
        THEN (extract(EPOCH FROM pg_catalog.pg_xact_commit_timestamp(t.xmin)) * 1000)::bigint
END AS committed_ms,
coalesce(
    CASE
        WHEN current_setting('track_commit_timestamp') = 'on'
            THEN (extract(EPOCH FROM pg_catalog.pg_xact_commit_timestamp(t.xmin)) * 1000000)::bigint
    END,
    - pg_catalog.age(t.xmin)
) AS commit_order
