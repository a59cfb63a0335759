-- Make a waiting message due at another moment. KEYS: its stream. ARGV: group, id, the moment.
-- Answers 1, or 0 where it does not wait.
local stream, group, id, due = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local index = helper(stream, 'index')
local where = redis.call('HGET', index, id)
if not where or where == '-' or string.sub(where, 1, 1) == 'x' then return 0 end
local ready = due <= now()
if where == '@' then
  local set, bodies = helper(stream, 'later'), helper(stream, 'bodies')
  local body = redis.call('HGET', bodies, id)
  if not body then return 0 end
  though_full(stream)
  if ready then
    local f = cmsgpack.unpack(body)
    redis.call('HSET', index, id, store(stream, f, 0, tonumber(read(f).p or 0)))
    redis.call('ZREM', set, id)
    redis.call('HDEL', bodies, id)
  else
    redis.call('ZADD', set, ARGV[3], id)
    -- Who waits knows when the first one was due.
    if redis.call('ZRANK', set, id) == 0 then ring(stream) end
  end
  return 1
end
local priority, entry = placed(where)
local name = lane(stream, priority)
local got, row = redis.call('XRANGE', name, entry, entry)[1], redis.pcall('XPENDING', name, group, entry, entry, 1)
if not got or (not failed(row) and row[1]) then return 0 end
if not ready then
  though_full(stream)
  redis.call('HSET', index, id, later(stream, id, got[2], due))
  redis.call('XDEL', name, entry)
end
return 1
