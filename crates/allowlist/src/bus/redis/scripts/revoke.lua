-- Removes tokens from the list and publishes an event. It must work when memory is full, too (allow-oom).
-- KEYS: register, events, then the tokens'   ARGV: nonce, event, how far the stream reaches back (ms)
for i = 3, #KEYS do
  redis.call('DEL', KEYS[i])
end
publish(ARGV[1], ARGV[2], ARGV[3])
