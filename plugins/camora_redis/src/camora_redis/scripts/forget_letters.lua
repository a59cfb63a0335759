-- Delete dead letters for good. KEYS: the queue's stream, its dead letters. ARGV: dedup window, ids; without ids: the
-- oldest hundreds. Answers with how many; called again without ids until it is 0.
local stream, dead, window, index = KEYS[1], KEYS[2], tonumber(ARGV[1]), helper(KEYS[1], 'index')
local ids, entries = {}, {}
if #ARGV > 1 then
  for i = 2, #ARGV do
    local where = redis.call('HGET', index, ARGV[i])
    if where and string.sub(where, 1, 1) == 'x' then
      ids[#ids + 1] = ARGV[i]
      entries[#entries + 1] = string.sub(where, 2)
      redis.call('HSET', index, ARGV[i], '-')
    end
  end
else
  for _, got in ipairs(redis.call('XRANGE', dead, '-', '+', 'COUNT', 500)) do
    ids[#ids + 1] = read(got[2]).id
    entries[#entries + 1] = got[1]
  end
end
if #entries > 0 then redis.call('XDEL', dead, unpack(entries)) end
finish(stream, ids, window)
return #entries
