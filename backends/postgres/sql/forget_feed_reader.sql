-- Forget a reader of the feed that is gone for good, so that the rows that it has not stored can be deleted.
DELETE FROM stream_relay.positions WHERE consumer = :'consumer' AND source = 'stream_relay.feed'
