-- Adds a token to the list and publishes an event.
-- KEYS: register, events, the token's   ARGV: nonce, event, how far the stream reaches back (ms), sid, life (s)
redis.call('SET', KEYS[3], ARGV[4], 'EX', ARGV[5])
publish(ARGV[1], ARGV[2], ARGV[3])
