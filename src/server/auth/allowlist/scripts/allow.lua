-- Lists a token and tells the others.
-- KEYS: head, events, the token's   ARGV: nonce, event, how long the stream reaches back (ms), sid, life (s)
redis.call('SET', KEYS[3], ARGV[4], 'EX', ARGV[5])
local oldest = redis.call('TIME')[1] * 1000 - ARGV[3]
local before = redis.call('GET', KEYS[1]) or ''
redis.call('XADD', KEYS[2], 'MINID', '~', string.format('%d', oldest), '*', 'n', ARGV[1], 'p', before, 'e', ARGV[2])
redis.call('SET', KEYS[1], ARGV[1])
