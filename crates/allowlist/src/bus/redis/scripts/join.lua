#!lua flags=allow-oom
-- Returns the newest position, the membership, and the identity of this Redis: a random value that is made
-- once identifies the data, and the run id the process, because a copy of the data has the same value. The
-- script writes, so that a node that may not accept writes rejects it.
-- KEYS: membership, events, identity   ARGV: a nonce for a new chain, an identity for a Redis without one
local head = redis.call('HGET', KEYS[1], 'head')
if not head or not string.match(head, '^%d+$') then
  head = ARGV[1]
end
redis.call('HSET', KEYS[1], 'head', head)
redis.call('SET', KEYS[3], ARGV[2], 'NX')
-- An ACL may forbid INFO; then a copy of the data cannot be distinguished from the original.
local info = redis.pcall('INFO', 'server')
local run_id = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or ''
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
return {
  newest[1] and newest[1][1] or '0-0', redis.call('HGETALL', KEYS[1]), redis.call('GET', KEYS[3]) .. '/' .. run_id
}
