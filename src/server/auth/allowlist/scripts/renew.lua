#!lua flags=allow-oom
-- Reports how far an instance has come; tells what has happened since, and how far the others are.
-- KEYS: register, events
-- ARGV: instance, its report, its position, how many entries at most,
--       then pairs of an instance that has lapsed and the report it was last seen with
for i = 5, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return { redis.call('XRANGE', KEYS[2], '(' .. ARGV[3], '+', 'COUNT', ARGV[4]), redis.call('HGETALL', KEYS[1]) }
