-- Nodes behind a gate were handed on. KEYS: the record. ARGV: id, now, gate, the last index, the gate's run.
local passed, changed = unpack(redis.call('HMGET', KEYS[1], 'p:' .. ARGV[3], 'changed'))
if not changed or (passed and tonumber(passed) >= tonumber(ARGV[4])) then return 0 end
if ARGV[3] ~= '-1' and redis.call('HEXISTS', part('meta'), ARGV[3]) == 0 then return 0 end
if tonumber(redis.call('HGET', part('runs'), ARGV[3]) or 0) ~= tonumber(ARGV[5]) then return 0 end
graph_though_full()
redis.call('HSET', KEYS[1], 'p:' .. ARGV[3], ARGV[4])
touch(changed, ARGV[2])
return 1
