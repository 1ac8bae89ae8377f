#!lua flags=allow-oom
-- Takes tokens off the list and tells the others. It has to work when memory is full, too.
-- KEYS: register, events, then the tokens'   ARGV: nonce, event, how long the stream reaches back (ms)
for i = 3, #KEYS do
  redis.call('DEL', KEYS[i])
end
local oldest = string.format('%d', redis.call('TIME')[1] * 1000 - ARGV[3])
local before = redis.call('HGET', KEYS[1], 'head') or ''
redis.call('XADD', KEYS[2], 'MINID', '~', oldest, '*', 'n', ARGV[1], 'p', before, 'e', ARGV[2])
redis.call('HSET', KEYS[1], 'head', ARGV[1])
