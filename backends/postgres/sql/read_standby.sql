-- Whether the server is a standby without a slot that can be read there: none, or one that it synchronises from the
-- primary. PostgreSQL 16 and later can decode on a standby; `synced` is of 17, and so read through JSON.
SELECT
    pg_catalog.pg_is_in_recovery() AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_replication_slots AS s
        WHERE s.slot_name = :'slot' AND coalesce(to_jsonb(s) ->> 'synced', 'false') = 'false'
    ) AS is_standby
