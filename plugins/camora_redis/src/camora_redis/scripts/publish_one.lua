-- Store a message that is ready and has no wishes, unless its id is known. ARGV: id, task, body.
local stream, id = KEYS[1], ARGV[1]
local index = helper(stream, 'index')
if redis.call('HEXISTS', index, id) == 0 then
  redis.call('HSET', index, id, redis.call('XADD', stream, '*', 'i', id, 't', ARGV[2], 'b', ARGV[3]))
end
return {id}
