-- Removes an instance from the membership.
-- KEYS: register, acks, profiles   ARGV: instance, its partitions, a nonce for a new chain
redis.call('HDEL', KEYS[3], ARGV[1])
local link = head()
if redis.call('ZREM', KEYS[1], ARGV[1], ARGV[1] .. ' ' .. ARGV[2]) > 0 and link then
  local lowest = redis.call('ZRANGE', KEYS[1], '0', '0', 'WITHSCORES')[2]
  if lowest == 'inf' then
    -- Beats begin again. An instance that was away and remembers higher ones must not continue: it would take all
    -- others for silent.
    replace_head(link, ARGV[3], 0, ARGV[3], 0)
  else
    applied_by_all(KEYS[2], lowest, membership_has_changed(link))
  end
end
