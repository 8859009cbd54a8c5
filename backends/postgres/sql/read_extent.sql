-- The oldest and the newest id that are visible; NULL in an empty table.
SELECT
    min(:"order_column")::bigint AS oldest,
    max(:"order_column")::bigint AS newest
FROM :"schema".:"table"
