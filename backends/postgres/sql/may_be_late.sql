-- Whether the publication may be younger than the offset of an unread slot.
-- It cannot be if the transaction that created or last changed it is older than the slot's catalog_xmin.
SELECT EXISTS (
    SELECT
    FROM pg_catalog.pg_publication AS p
    CROSS JOIN pg_catalog.pg_replication_slots AS s
    WHERE
        p.pubname = :'publication' AND s.slot_name = :'slot'
        AND NOT s.active AND age(p.xmin) <= age(s.catalog_xmin)
)
