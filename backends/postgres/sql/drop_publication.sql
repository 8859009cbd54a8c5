-- Publish nothing any more. After the slot is dropped: a slot that is read needs it.
DROP PUBLICATION IF EXISTS :"publication"
