-- Nodes are to run again. KEYS: the record. ARGV: id, now, {index, …}, packed. Answers how many there were.
local state, changed = unpack(redis.call('HMGET', KEYS[1], 'state', 'changed'))
if not state then return 0 end
graph_though_full()
local indexes, reopened, waits, gates = cmsgpack.unpack(ARGV[3]), {}, {}, {}
local metas = many('HMGET', part('meta'), indexes)
for i, index in ipairs(indexes) do
  if metas[i] and redis.call('HDEL', part('ended'), index) == 1 then
    reopened[#reopened + 1] = index
    gates[#gates + 1] = 'p:' .. index
    redis.call('HINCRBY', part('runs'), index, 1)
    for _, target in ipairs(fed(metas[i])) do
      waits[target] = waits[target] or {}
      table.insert(waits[target], index)
    end
  end
end
if #reopened == 0 then return 0 end
for target, sources in pairs(waits) do many('SADD', waited(target), sources) end
many('HDEL', KEYS[1], gates)
redis.call('HSET', KEYS[1], 'runs', 1)
if state == 'finished' then
  redis.call('HSET', KEYS[1], 'state', 'running')
  redis.call('HDEL', KEYS[1], 'status', 'finished')
  for _, kind in ipairs({'record', 'meta', 'specs', 'ended', 'runs', 'lists'}) do redis.call('PERSIST', part(kind)) end
  redis.call('ZREM', of_all('ends'), ARGV[1])
  redis.call('ZADD', of_all('open'), 0, ARGV[1])
end
touch(changed, ARGV[2])
return #reopened
