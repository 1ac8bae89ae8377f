#!lua flags=allow-oom
-- Where the chain of events stands, and which Redis this is: the data by a random value made once, and the
-- process by its run id, because a copy of the data has the same value. A write, so that a server that may
-- not take any refuses it.
-- KEYS: register, events, identity   ARGV: a nonce to begin a chain with, an identity for a Redis without one
local head = redis.call('HGET', KEYS[1], 'head')
if not head or not string.match(head, '^%d+$') then
  head = ARGV[1]
end
redis.call('HSET', KEYS[1], 'head', head)
redis.call('SET', KEYS[3], ARGV[2], 'NX')
-- An ACL may forbid it: then copies cannot be told apart.
local info = redis.pcall('INFO', 'server')
local run_id = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or ''
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
return {
  newest[1] and newest[1][1] or '0-0', redis.call('HGETALL', KEYS[1]), redis.call('GET', KEYS[3]) .. '/' .. run_id
}
