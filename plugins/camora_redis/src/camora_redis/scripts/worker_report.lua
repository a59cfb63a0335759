-- Note that a worker lives. KEYS: the names of all, the worker, its orders. ARGV: name, what it says, for how many ms.
-- Answers with the orders that it has not heard yet, the oldest first.
local names, worker, orders, ttl = KEYS[1], KEYS[2], KEYS[3], tonumber(ARGV[3])

-- Somebody of its name may have been here before: those orders were not for this one.
if redis.call('EXISTS', worker) == 0 then redis.call('DEL', orders) end
local given = redis.call('LRANGE', orders, 0, -1)
if #given > 0 then redis.call('DEL', orders) end

redis.call('SET', worker, ARGV[2], 'PX', ttl)
redis.call('ZREMRANGEBYSCORE', names, '-inf', now())
redis.call('ZADD', names, now() + ttl, ARGV[1])
if redis.call('PTTL', names) < ttl then redis.call('PEXPIRE', names, ttl) end
return given
