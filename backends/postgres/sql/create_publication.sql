-- Publish what is inserted into the table of rounds, and nothing else.
-- Only inserts: publishing updates would make them fail on a table without a key. Before the slot: one made after the
-- slot's position is unknown to the changes that the slot reads first, and the stream fails for good.
CREATE PUBLICATION :"publication" FOR TABLE :"schema".:"table"
WITH (publish = 'insert', publish_via_partition_root = true)
