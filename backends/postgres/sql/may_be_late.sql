-- Whether a publication may be younger than the offset that an unread slot is at: what made it, or changed it last, is
-- no transaction of before all that the slot still needs of the catalogue.
SELECT EXISTS (
    SELECT
    FROM pg_catalog.pg_publication AS p
    CROSS JOIN pg_catalog.pg_replication_slots AS s
    WHERE
        p.pubname = :'publication' AND s.slot_name = :'slot'
        AND NOT s.active AND age(p.xmin) <= age(s.catalog_xmin)
)
