#!lua flags=allow-oom
-- Takes tokens off the list and tells the others. It has to work when memory is full, too.
-- KEYS: head, events, then the tokens'   ARGV: nonce, event, how long the stream reaches back (ms)
for i = 3, #KEYS do
  redis.call('DEL', KEYS[i])
end
local oldest = redis.call('TIME')[1] * 1000 - ARGV[3]
local before = redis.call('GET', KEYS[1]) or ''
redis.call('XADD', KEYS[2], 'MINID', '~', string.format('%d', oldest), '*', 'n', ARGV[1], 'p', before, 'e', ARGV[2])
redis.call('SET', KEYS[1], ARGV[1])
