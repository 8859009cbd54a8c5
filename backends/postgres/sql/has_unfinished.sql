-- Whether a table has rows that are not finished: they become rounds by an UPDATE.
SELECT EXISTS (SELECT FROM :"schema".:"table" AS t WHERE ( :is_ours ) AND NOT ( :is_finished ))
