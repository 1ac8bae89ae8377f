#!lua flags=allow-oom
-- Where the chain of events stands. A write, so that a server that may not take any refuses it.
-- KEYS: register, events   ARGV: a nonce to begin a chain with
local head = redis.call('HGET', KEYS[1], 'head') or ARGV[1]
redis.call('HSET', KEYS[1], 'head', head)
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
return { newest[1] and newest[1][1] or '0-0', redis.call('HGETALL', KEYS[1]) }
