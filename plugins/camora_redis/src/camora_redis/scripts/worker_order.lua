-- Leave an order for a worker, if it lives. KEYS: the worker, its orders. ARGV: the order. Answers 1, or 0.
local left = redis.call('PTTL', KEYS[1])
if left < 0 then return 0 end
redis.call('RPUSH', KEYS[2], ARGV[1])
redis.call('PEXPIRE', KEYS[2], left + 1)
return 1
