-- The rows of scan_rows.sql, and those of the ids $4 that are finished now, in the same snapshot.
SELECT
    n.*,
    FALSE AS was_known
FROM ( :scan_rows ) AS n
UNION ALL
SELECT
    k.*,
    TRUE AS was_known
FROM unnest($4::bigint []) AS a (id)
CROSS JOIN LATERAL (
    SELECT :row_columns
    FROM :"schema".:"table" AS t
    WHERE t.:"order_column" = a.id AND ( :is_finished )
) AS k
