-- Stores the report of an instance, and removes the members whose beat is below a bound. Returns the head of the
-- chain, the lowest serial number that a member has reported, and the beat of this report, as one text. If the register
-- is of another chain than the instance follows, nothing is stored or returned.
-- KEYS: register, acks
-- ARGV: instance, its partitions, chain, serial number, the serial number of its last report (or -1), the bound
local last = redis.call('ZRANGE', KEYS[1], '-2', '-1', 'WITHSCORES')
local link = last[#last - 1]
if last[#last] ~= 'inf' or string.sub(link, 1, #ARGV[3] + 1) ~= ARGV[3] .. ' ' then
  return false
end
local beat = string.format('%.0f', (last[4] and last[2] or FIRST_BEAT) + 1)
local changed = redis.call('ZADD', KEYS[1], ARGV[4], ARGV[1], beat, ARGV[1] .. ' ' .. ARGV[2])
local lapsed = ARGV[6] and redis.call('ZRANGE', KEYS[1], FIRST_BEAT, '(' .. ARGV[6], 'BYSCORE') or {}
for _, member in ipairs(lapsed) do
  changed = changed + redis.call('ZREM', KEYS[1], member, (string.match(member, '^%S+')))
end
if changed > 0 then
  link = membership_has_changed(link)
end
local lowest = redis.call('ZRANGE', KEYS[1], '0', '0', 'WITHSCORES')[2]
-- What all have applied can rise only if this instance or a lapsed one was the last.
if #lapsed > 0 or tonumber(lowest) > tonumber(ARGV[5]) then
  applied_by_all(KEYS[2], lowest, link)
end
return link .. ' ' .. lowest .. ' ' .. beat
