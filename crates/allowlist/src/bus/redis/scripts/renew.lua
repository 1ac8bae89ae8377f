#!lua flags=allow-oom
-- Stores the report of an instance, and returns the entries after its position and the membership.
-- KEYS: membership, events
-- ARGV: instance, its report, its position, the maximum number of entries,
--       then pairs of an instance whose lease has expired and its last known report
for i = 5, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return { redis.call('XRANGE', KEYS[2], '(' .. ARGV[3], '+', 'COUNT', ARGV[4]), redis.call('HGETALL', KEYS[1]) }
