-- The columns of the table of offsets, in create_offsets.sql and create_feed.sql.
consumer text NOT NULL,
source text NOT NULL,
lowest bigint NOT NULL,
safe bigint NOT NULL,
updated_at timestamptz NOT NULL DEFAULT now(),
PRIMARY KEY (consumer, source)
