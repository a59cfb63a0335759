-- Lend out what is due, the oldest tick first. KEYS: definitions, states, due, lent (see schedule_change.lua).
-- ARGV: now and the length of the lease in ms, how many, the receipt, then the groups that are asked for; none: all.
-- Answers with key, definition and state of each.
local definitions, states, due, lent = unpack(KEYS)
local moment, till, most, receipt = ARGV[1], ARGV[1] + ARGV[2], tonumber(ARGV[3]), ARGV[4]
local GROUP, RECEIPT = 1, 7
-- A loan that ends later than this was made before the clock was set back.
local latest = till + 60000
local groups, answer, start = {}, {}, 0
for i = 5, #ARGV do groups[ARGV[i]] = true end

local function lend(key)
  local lapses = tonumber(redis.call('ZSCORE', lent, key) or moment)
  if lapses > tonumber(moment) and lapses <= latest then return 0 end
  local packed = redis.call('HGET', states, key)
  local state = packed and cmsgpack.unpack(packed)
  if not state or (next(groups) and not groups[state[GROUP]]) then return 0 end
  state[RECEIPT] = receipt
  packed = cmsgpack.pack(state)
  redis.call('HSET', states, key, packed)
  redis.call('ZADD', lent, till, key)
  answer[#answer + 1] = key
  answer[#answer + 1] = redis.call('HGET', definitions, key)
  answer[#answer + 1] = packed
  return 1
end

while most > 0 do
  local keys = redis.call('ZRANGEBYSCORE', due, '-inf', moment, 'LIMIT', start, 200)
  if #keys == 0 then break end
  for _, key in ipairs(keys) do
    most = most - lend(key)
    if most == 0 then break end
  end
  start = start + #keys
end
return answer
