-- Nodes are to run again. KEYS: the record. ARGV: id, now, {{index, …}, {run, …}}, packed. Answers 1; or 0, and nothing was
-- done, where one of them has not ended in that run.
local state, changed = unpack(redis.call('HMGET', KEYS[1], 'state', 'changed'))
if not state then return 0 end
local indexes, seen = unpack(cmsgpack.unpack(ARGV[3]))
local metas, runs = many('HMGET', part('meta'), indexes), many('HMGET', part('runs'), indexes)
for i, index in ipairs(indexes) do
  local ended = metas[i] and redis.call('HEXISTS', part('ended'), index) == 1
  if not ended or tonumber(runs[i] or 0) ~= seen[i] then return 0 end
end
graph_though_full()
local waits, gates = {}, {}
for i, index in ipairs(indexes) do
  gates[i] = 'p:' .. index
  redis.call('HINCRBY', part('runs'), index, 1)
  for _, target in ipairs(fed(metas[i])) do
    waits[target] = waits[target] or {}
    table.insert(waits[target], index)
  end
end
many('HDEL', part('ended'), indexes)
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
return 1
