-- The earliest tick; of what is lent, the end of its lease. KEYS: states, due, lent (see schedule_change.lua).
-- ARGV: the groups that are asked for; none: all. Answers with ms as a text, or nothing.
local states, due, lent = unpack(KEYS)
local groups = {}
for _, group in ipairs(ARGV) do groups[group] = true end

local function wanted(key)
  if #ARGV == 0 then return true end
  local packed = redis.call('HGET', states, key)
  return packed and groups[cmsgpack.unpack(packed)[1]]
end

-- The first key of `set` that is wanted, and in or not in the other set: its score.
local function first(set, other, there)
  local start = 0
  while true do
    local found = redis.call('ZRANGE', set, start, start + 49, 'WITHSCORES')
    if #found == 0 then return nil end
    for i = 1, #found, 2 do
      local inside = redis.call('ZSCORE', other, found[i]) and true or false
      if inside == there and wanted(found[i]) then return tonumber(found[i + 1]) end
    end
    start = start + 50
  end
end

local next_tick, lapses = first(due, lent, false), first(lent, due, true)
if next_tick and lapses then next_tick = math.min(next_tick, lapses) end
next_tick = next_tick or lapses
return next_tick and string.format('%.0f', next_tick)
