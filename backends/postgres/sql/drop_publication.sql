-- Stop publishing. After the slot is dropped: a slot that is read needs its publication.
DROP PUBLICATION IF EXISTS :"publication"
