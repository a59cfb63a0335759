-- Stop handing out a queue's messages, or let go on. KEYS: its stream. ARGV: "p" or "r", group.
-- To a group that has read everything there is and will be, nothing is new: so nobody can take from a paused queue, not
-- even who waits at the stream already. Other priorities are only read by `take`, which looks at the state.
local stream, wish, group = KEYS[1], ARGV[1], ARGV[2]
local index, kept = helper(stream, 'index'), helper(stream, 'paused')
local state = redis.call('HGET', index, '')
if paused(state) == (wish == 'p') or (not state and wish == 'r') then return 0 end
though_full(stream)
local problem = create(stream, group)
if problem then return problem end
if wish == 'p' then
  for _, one in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local info = read(one)
    if info.name == group then redis.call('SET', kept, info['last-delivered-id']) end
  end
  redis.call('XGROUP', 'SETID', stream, group, ALL)
else
  redis.call('XGROUP', 'SETID', stream, group, redis.call('GET', kept) or '0')
  redis.call('DEL', kept)
end
redis.call('HSET', index, '', wish .. string.sub(state or 'r', 2))
if wish == 'p' then return 1 end
ring(stream)
-- Nothing is left of a queue that was only ever paused: then the answer is 2.
local unused = redis.call('HLEN', index) == 1 and state == 'p' and redis.call('XLEN', stream) == 0
if unused and #redis.call('XINFO', 'CONSUMERS', stream, group) == 0 then
  redis.call('DEL', stream, index, helper(stream, 'bell'))
  return 2
end
return 1
