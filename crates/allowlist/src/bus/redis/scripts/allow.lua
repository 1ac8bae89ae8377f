#!lua
-- Adds a token to the list and publishes an event.
-- KEYS: membership, events, the token's   ARGV: nonce, event, how far the stream reaches back (ms), sid,
-- life (s)
redis.call('SET', KEYS[3], ARGV[4], 'EX', ARGV[5])
local now = redis.call('TIME')[1] * 1000
local oldest = string.format('%d', now - ARGV[3])
local before = redis.call('HGET', KEYS[1], 'head') or ''
local id = redis.call('XADD', KEYS[2], 'MINID', '~', oldest, '*', 'n', ARGV[1], 'p', before, 'e', ARGV[2])
redis.call('HSET', KEYS[1], 'head', ARGV[1])
-- After a moment in which the clock was ahead, ids stay ahead of it, and none is old enough to be trimmed.
if tonumber(string.match(id, '^%d+')) - now > tonumber(ARGV[3]) then
  redis.pcall('XTRIM', KEYS[2], 'MAXLEN', '~', 100000)
end
