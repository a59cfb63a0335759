-- Hold the slots of holders for a full lease from now. KEYS: the holders; ARGV: lease in ms, then who they are.
-- Answers for each: 1 held on, 0 lost, -1 what it holds is nowhere.
local till, answers = now() + tonumber(ARGV[1]) + 1, {}

local function state(slots, holder)
  if #slots == 0 then return 0 end
  for _, key in ipairs(slots) do
    local lapses = redis.call('ZSCORE', key, holder)
    if not lapses then return redis.call('EXISTS', key) - 1 end
    if tonumber(lapses) <= now() then return 0 end
  end
  return 1
end

for i, name in ipairs(KEYS) do
  local holder, slots = ARGV[i + 1], redis.call('SMEMBERS', name)
  answers[i] = state(slots, holder)
  if answers[i] == 1 then
    for _, key in ipairs(slots) do
      redis.call('ZADD', key, till, holder)
      if redis.call('PTTL', key) < till + 1000 - now() then redis.call('PEXPIREAT', key, till + 1000) end
    end
    redis.call('PEXPIREAT', name, till)
  end
end

return answers
