-- The oldest and the newest visible id; NULL in an empty table.
SELECT
    min(:"order_column")::bigint AS oldest,
    max(:"order_column")::bigint AS newest
FROM :"schema".:"table"
