-- Delete waiting messages of a queue, some hundreds at a time. KEYS: its stream. ARGV: group, dedup window.
-- Answers with how many; called again until it is 0.
local stream, group, window, index = KEYS[1], ARGV[1], tonumber(ARGV[2]), helper(KEYS[1], 'index')
local ids, count, total = {}, 500, 0
local before = redis.call('GET', helper(stream, 'paused'))

local function drop(f)
  total = total + 1
  -- What a stranger has written has no id.
  if not f.i then return end
  free(stream, f.i, f.k, f.l)
  ids[#ids + 1] = f.i
end

local set, bodies = helper(stream, 'later'), helper(stream, 'bodies')
local waiting = redis.call('ZRANGE', set, 0, count - 1)
if #waiting > 0 then
  for i, body in ipairs(redis.call('HMGET', bodies, unpack(waiting))) do
    if body then drop(read(cmsgpack.unpack(body))) end
  end
  redis.call('ZREM', set, unpack(waiting))
  redis.call('HDEL', bodies, unpack(waiting))
end

local lanes = {stream}
for _, priority in ipairs(priorities(redis.call('HGET', index, ''))) do lanes[#lanes + 1] = lane(stream, priority) end
for _, name in ipairs(lanes) do
  local left, from = count - total, '-'
  local groups = redis.pcall('XINFO', 'GROUPS', name)
  if not failed(groups) then
    for _, one in ipairs(groups) do
      local info = read(one)
      if info.name == group then from = '(' .. (name == stream and before or info['last-delivered-id']) end
    end
  end
  if left > 0 then
    local entries = {}
    for _, got in ipairs(redis.call('XRANGE', name, from, '+', 'COUNT', left)) do
      entries[#entries + 1] = got[1]
      drop(read(got[2]))
    end
    if #entries > 0 then redis.call('XDEL', name, unpack(entries)) end
  end
end
finish(stream, ids, window)
return total
