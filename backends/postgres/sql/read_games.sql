-- The table of games: the slug by the key, both as text.
SELECT
    g.:"key_column"::text AS game_key,
    g.:"slug_column"::text AS slug
FROM :"schema".:"table" AS g
WHERE g.:"key_column" IS NOT NULL AND g.:"slug_column" IS NOT NULL
LIMIT 100000
