-- Takes back a try that was counted in the bucket KEYS[1], and the wait that came of it.
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HINCRBYFLOAT', KEYS[1], 'level', -1)
  redis.call('HSET', KEYS[1], 'until', 0)
end
