-- Move the first messages of a list into its queue. KEYS: the queue's stream, the list. ARGV: the messages, packed, and
-- their bodies. Answers with how many were moved: it ends where the list has begun otherwise; -1 for a paused queue.
local stream, list = KEYS[1], KEYS[2]
if paused(redis.call('HGET', helper(stream, 'index'), '')) then return -1 end
local chosen = {}
for i, m in ipairs(cmsgpack.unpack(ARGV[1])) do
  if redis.call('LINDEX', list, i - 1) ~= blob(m[3]) then break end
  chosen[i] = m
end
if #chosen > 0 then
  though_full(stream)
  publish(stream, chosen)
  redis.call('LTRIM', list, #chosen, -1)
end
return #chosen
