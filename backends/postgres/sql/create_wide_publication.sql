-- Publish more than inserts into one table: updates for rounds that are finished by UPDATE, or further tables.
-- Before it, every table needs a replica identity: updates of a published table without one fail. Before the slot:
-- changes in a slot that is older than its publication are decoded without the publication, and the stream fails for
-- good.
CREATE PUBLICATION :"publication" :published_tables
