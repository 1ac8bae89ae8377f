-- Records an attempt in the bucket KEYS[1] and returns 0, or returns the milliseconds that it has to wait.
-- The rule is the same as in throttle/mod.rs.
-- ARGV: the number of free attempts, the milliseconds until one more is free, the longest wait in
-- milliseconds
local burst, every, longest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local bucket = redis.call('HMGET', KEYS[1], 'level', 'at', 'until')
local level, at, waits_until = tonumber(bucket[1] or 0), tonumber(bucket[2] or now), tonumber(bucket[3] or 0)
-- If the clock was set back, the wait must not grow by the difference.
if waits_until > now and waits_until - now <= longest then
  return waits_until - now
end
level = math.max(0, level - math.max(0, now - at) / every) + 1
local over = math.floor(level - burst + 0.5)
local wait = 0
if over >= 0 then
  wait = math.min(longest, 1000 * 2 ^ math.min(30, over))
end
redis.call('HSET', KEYS[1], 'level', tostring(level), 'at', now, 'until', now + wait)
redis.call('PEXPIRE', KEYS[1], math.ceil(level * every) + wait)
return 0
