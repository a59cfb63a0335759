-- Nodes behind a gate were handed on. KEYS: the record. ARGV: id, now, gate, the last index, the gate's run.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if ARGV[3] ~= '-1' and redis.call('HEXISTS', part('meta'), ARGV[3]) == 0 then return 0 end
if tonumber(redis.call('HGET', part('runs'), ARGV[3]) or 0) ~= tonumber(ARGV[5]) then return 0 end
local before = redis.call('HGET', KEYS[1], 'p:' .. ARGV[3])
if before and tonumber(before) >= tonumber(ARGV[4]) then return 0 end
graph_though_full()
redis.call('HSET', KEYS[1], 'p:' .. ARGV[3], ARGV[4])
touch(ARGV[2])
return 1
