-- The beginning of each script that reads or writes the register (KEYS[1]), a sorted set with these elements:
--   element                              score
--   the instance                         the serial number up to which it has applied the events
--   the instance, its partitions         a beat, which rises with each report
--   chain, serial number, nonce, version infinity: the head of the chain
-- Serial numbers are below all beats, so the first element has the lowest serial number, and the last is the head.
-- Numbers are passed to Redis as texts: to convert them there takes longer than all the rest.
local FIRST_BEAT = '4503599627370496'

local function head()
  local last = redis.call('ZRANGE', KEYS[1], '-1', '-1', 'WITHSCORES')
  if last[2] == 'inf' then
    return last[1]
  end
end

local function parts(text)
  return string.match(text, '^(%d+) (%d+) (%d+) (%d+)$')
end

local function replace_head(old, chain, serial, nonce, version)
  local new = string.format('%s %.0f %s %.0f', chain, serial, nonce, version)
  -- In this order: a set that is empty for a moment does not exist, and cannot be written while its slot migrates.
  redis.call('ZADD', KEYS[1], 'inf', new)
  if old then
    redis.call('ZREM', KEYS[1], old)
  end
  return new
end

local function membership_has_changed(old)
  local chain, serial, nonce, version = parts(old)
  return replace_head(old, chain, serial, nonce, version + 1)
end

-- Wakes those who wait until all have applied this serial number or a lower one: they read the stream from it on.
local function applied_by_all(acks, serial, link)
  if tonumber(serial) > 0 then
    local chain, _, _, version = parts(link)
    local id = serial .. '-' .. version
    local added = redis.pcall('XADD', acks, 'MAXLEN', '1', id, 'c', chain)
    if type(added) == 'table' and added.err then
      local newest = redis.call('XREVRANGE', acks, '+', '-', 'COUNT', '1')[1]
      -- What an earlier chain has left may have a higher id. In this chain, a higher one was true, too.
      if not newest or newest[2][2] ~= chain then
        redis.call('DEL', acks)
        redis.call('XADD', acks, id, 'c', chain)
      end
    end
  end
end

-- Appends an event to the stream (KEYS[2]), linked to the one before it.
local function publish(nonce, event, reach_ms)
  local old = head()
  local chain, serial, before, version = nonce, 0, '', 0
  if old then
    chain, serial, before, version = parts(old)
  end
  local now = redis.call('TIME')[1] * 1000
  local oldest = string.format('%d', now - reach_ms)
  local id = redis.call('XADD', KEYS[2], 'MINID', '~', oldest, '*', 'n', nonce, 'p', before, 'e', event)
  replace_head(old, chain, serial + 1, nonce, version)
  -- After a moment in which the clock was ahead, ids stay ahead of it, and none is old enough to be trimmed.
  if tonumber(string.match(id, '^%d+')) - now > tonumber(reach_ms) then
    redis.pcall('XTRIM', KEYS[2], 'MAXLEN', '~', '100000')
  end
end

