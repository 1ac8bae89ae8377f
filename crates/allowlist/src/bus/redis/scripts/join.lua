-- Returns the newest position, the head of the chain, and the identity of this Redis: a random value that is made
-- once identifies the data, and the run id the process, because a copy of the data has the same value. The
-- script writes, so that a node that may not accept writes rejects it.
-- KEYS: register, events, identity, acks   ARGV: a nonce for a new chain, an identity for a Redis without one
local newest_link = head()
if not newest_link or not parts(newest_link) then
  newest_link = replace_head(newest_link, ARGV[1], 0, ARGV[1], 0)
end
redis.call('SET', KEYS[3], ARGV[2], 'NX')
-- While a slot of a Redis Cluster migrates, commands fail of whose keys some do not exist.
if redis.call('EXISTS', KEYS[4]) == 0 then
  redis.call('XADD', KEYS[4], '0-1', 'c', '')
end
-- An ACL may forbid INFO; then a copy of the data cannot be distinguished from the original.
local info = redis.pcall('INFO', 'server')
local run_id = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or ''
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', '1')
return { newest[1] and newest[1][1] or '0-0', newest_link, redis.call('GET', KEYS[3]) .. '/' .. run_id }
