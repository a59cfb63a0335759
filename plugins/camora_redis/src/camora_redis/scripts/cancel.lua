-- Remove a waiting message, or flag a lent one. KEYS: its stream. ARGV: group, dedup window, id.
-- Answers with "removed", "signalled", "finished" or "unknown".
local stream, group, window, id = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]
local where = redis.call('HGET', helper(stream, 'index'), id)
if not where then return 'unknown' end
if where == '-' or string.sub(where, 1, 1) == 'x' then return 'finished' end
though_full(stream)
local f
if where == '@' then
  f = read(cmsgpack.unpack(redis.call('HGET', helper(stream, 'bodies'), id)))
  redis.call('ZREM', helper(stream, 'later'), id)
  redis.call('HDEL', helper(stream, 'bodies'), id)
else
  local priority, entry = placed(where)
  local name = lane(stream, priority)
  local row = redis.pcall('XPENDING', name, group, entry, entry, 1)
  if not failed(row) and row[1] then
    redis.call('SADD', helper(stream, 'cancel'), id)
    return 'signalled'
  end
  local got = redis.call('XRANGE', name, entry, entry)
  f = got[1] and read(got[1][2]) or {}
  redis.call('XDEL', name, entry)
end
free(stream, id, f.k, f.l)
finish(stream, {id}, window)
return 'removed'
