-- Where messages of one queue lie. KEYS: its stream, its dead letters. ARGV: group, whether bodies are wanted, ids.
-- Answers for each: false, or {state, fields, due, times taken, consumer}.
local stream, dead, group, whole = KEYS[1], KEYS[2], ARGV[1], ARGV[2] == '1'
local answers = {}

local function found(id, where)
  if not where or where == '-' then return false end
  if string.sub(where, 1, 1) == 'x' then
    local got = redis.call('XRANGE', dead, string.sub(where, 2), string.sub(where, 2))
    return got[1] and {'dead', got[1][2], '0', 0, ''} or false
  end
  if where == '@' then
    local due = redis.call('ZSCORE', helper(stream, 'later'), id)
    local body = redis.call('HGET', helper(stream, 'bodies'), id)
    if not due or not body then return false end
    return {tonumber(due) > now() and 'scheduled' or 'ready', cmsgpack.unpack(body), due, 0, ''}
  end
  local priority, entry = placed(where)
  local name = lane(stream, priority)
  local got = redis.call('XRANGE', name, entry, entry)
  if not got[1] then return false end
  local row = redis.pcall('XPENDING', name, group, entry, entry, 1)
  if failed(row) or not row[1] then return {'ready', got[1][2], '0', 0, ''} end
  return {'leased', got[1][2], '0', row[1][4], row[1][2]}
end

for i = 3, #ARGV do
  local one = found(ARGV[i], redis.call('HGET', helper(stream, 'index'), ARGV[i]))
  if one and not whole then
    for at = 1, #one[2], 2 do if one[2][at] == 'b' then one[2][at + 1] = '' end end
  end
  answers[#answers + 1] = one
end
return answers
