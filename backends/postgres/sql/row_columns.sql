-- The columns of a row of table t, in scan_rows.sql and read_page.sql.
-- As text, since the mapper reads text: see mapping.Row. The commit time is NULL unless the server keeps commit times.
t.:"order_column"::bigint AS row_offset,
t.:"round_id"::text AS round_id,
t.:"game_slug"::text AS game_slug,
t.:"game_type"::text AS game_type,
t.:"finished_at"::text AS finished_at,
t.:"extras"::text AS extras,
CASE
    WHEN current_setting('track_commit_timestamp') = 'on'
        THEN (extract(EPOCH FROM pg_catalog.pg_xact_commit_timestamp(t.xmin)) * 1000)::bigint
END AS committed_ms
