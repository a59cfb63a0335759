-- How many messages of a queue are ready, scheduled, leased and dead. KEYS: its stream, its dead letters. ARGV: group.
local stream, group, index = KEYS[1], ARGV[1], helper(KEYS[1], 'index')
local state, leased = redis.call('HGET', index, ''), 0
local lanes = {stream}
for _, priority in ipairs(priorities(state)) do lanes[#lanes + 1] = lane(stream, priority) end
for _, name in ipairs(lanes) do
  local summary = redis.pcall('XPENDING', name, group)
  if not failed(summary) then leased = leased + summary[1] end
end
local dead = redis.call('XLEN', KEYS[2])
local scheduled = redis.call('ZCOUNT', helper(stream, 'later'), string.format('(%.0f', now()), '+inf')
local unfinished = redis.call('HLEN', index) - redis.call('LLEN', helper(stream, 'done')) - dead - (state and 1 or 0)
return {unfinished - leased - scheduled, scheduled, leased, dead}
