-- Publish inserts into the table of rounds, and nothing else.
-- Only inserts: updates of a published table without a key fail. Before the slot: changes in a slot that is older than
-- its publication are decoded without the publication, and the stream fails for good.
CREATE PUBLICATION :"publication" FOR TABLE :"schema".:"table"
WITH (publish = 'insert', publish_via_partition_root = true)
