-- Stop handing out a queue's messages, or let go on. KEYS: its stream. ARGV: "p" or "r".
-- What is published to a paused queue waits among those that are due later: whoever waits at the stream sees none of it.
local stream, index = KEYS[1], helper(KEYS[1], 'index')
local state = redis.call('HGET', index, '')
if not state and ARGV[1] == 'r' then return 0 end
redis.call('HSET', index, '', ARGV[1] .. string.sub(state or 'r', 2))
if ARGV[1] == 'r' then ring(stream) end
return 1
