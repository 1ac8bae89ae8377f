-- Takes back an attempt that was recorded in the bucket KEYS[1], and the wait that it caused.
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HINCRBYFLOAT', KEYS[1], 'level', -1)
  redis.call('HSET', KEYS[1], 'until', 0)
end
