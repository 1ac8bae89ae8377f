#!lua flags=allow-oom
-- Where the chain of events stands. A write, so that a server that may not take any refuses it.
-- KEYS: head, events, register   ARGV: a nonce to begin a chain with
local head = redis.call('GET', KEYS[1]) or ARGV[1]
redis.call('SET', KEYS[1], head)
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
return { head, newest[1] and newest[1][1] or '0-0', redis.call('HGETALL', KEYS[3]) }
