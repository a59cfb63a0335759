-- Schedules as they are. KEYS: their definitions, their states. ARGV: the keys that are asked for; none: all.
-- Answers with key, definition and state of each that there is.
local definitions, states, answer = KEYS[1], KEYS[2], {}

local keys = #ARGV > 0 and ARGV or redis.call('HKEYS', definitions)
for _, key in ipairs(keys) do
  local definition, state = redis.call('HGET', definitions, key), redis.call('HGET', states, key)
  if definition and state then
    answer[#answer + 1] = key
    answer[#answer + 1] = definition
    answer[#answer + 1] = state
  end
end
return answer
