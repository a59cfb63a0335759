-- Make queues known. KEYS: the set of all queues' names. ARGV: names. A full server lets a worker do it (see
-- `though_full` in `common.lua`).
redis.call('SREM', KEYS[1], '')
return redis.call('SADD', KEYS[1], unpack(ARGV))
