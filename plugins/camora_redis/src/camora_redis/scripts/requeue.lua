-- Put a dead letter's message back into its queue. KEYS: its stream, its dead letters.
-- ARGV: id, whether there is a new body, that body, the key of the record. Answers with 1, or 0 where there is none.
local stream, dead, id, index = KEYS[1], KEYS[2], ARGV[1], helper(KEYS[1], 'index')
local where = redis.call('HGET', index, id)
if not where or string.sub(where, 1, 1) ~= 'x' then return 0 end
local entry = string.sub(where, 2)
local got = redis.call('XRANGE', dead, entry, entry)
if not got[1] then return 0 end
local f = read(got[1][2])
local body = ARGV[2] == '1' and ARGV[3] or f.b
if f.k then
  local name = helper(stream, 'key:' .. f.k)
  local holder = redis.call('GET', name)
  if not holder or holder == id then redis.call('SET', name, id) end
end
local priority = tonumber(f.p or 0)
local m = {id, f.task, body, 0, tonumber(f.e), priority, f.k, f.l}
redis.call('HSET', index, id, store(stream, fields(m), 0, priority))
redis.call('XDEL', dead, entry)
redis.call('DEL', ARGV[4])
return 1
