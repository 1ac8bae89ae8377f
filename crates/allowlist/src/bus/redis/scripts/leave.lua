-- Removes an instance from the membership.
-- KEYS: register, acks, profiles   ARGV: instance, its partitions
redis.call('HDEL', KEYS[3], ARGV[1])
local link = head()
if redis.call('ZREM', KEYS[1], ARGV[1], ARGV[1] .. ' ' .. ARGV[2]) > 0 and link then
  membership_has_changed(link)
  local lowest = redis.call('ZRANGE', KEYS[1], '0', '0', 'WITHSCORES')
  if lowest[2] ~= 'inf' then
    applied_by_all(KEYS[2], lowest[2], link)
  end
end
