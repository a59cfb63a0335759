-- End deliveries of one queue. ARGV: group, consumer, dedup window, whether to look up each entry by itself,
-- the channel to tell, the settlements, packed: {plain, others}, and blobs.
-- Plain are acknowledgements without a key and without successors, in columns: {priority, {entry, …}, {times taken, …},
-- {id, …}[, beginning of their records' names, place of the first record's bytes, {milliseconds, …}]}.
-- Others are {action, priority, entry, times taken, id, key, ttl, more}, where `more` is {record, successors, envelope,
-- letter, delay, deliveries}; a record is {key, body, milliseconds, final}.
-- Successors are {stream, {envelope, …}} each. Answers with 1 for each that counted, else 0, up to the
-- first that could not be settled; with its error where that is the very first.
local stream, group, consumer, window = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local each, all = ARGV[4] == '1', cmsgpack.unpack(ARGV[6])
blobs = 6
local dead = KEYS[2]
local answers, held, gone, ended, told, problem = {}, {}, {}, {}, {}, nil

-- How often each entry was taken, of those that are this consumer's.
local function holding(priority, entry)
  local name = lane(stream, priority)
  if each then
    local row = redis.pcall('XPENDING', name, group, entry, entry, 1, consumer)
    return not failed(row) and row[1] and row[1][4]
  end
  local mine = held[priority]
  if not mine then
    mine = {}
    held[priority] = mine
    local rows = redis.pcall('XPENDING', name, group, '-', '+', 1000000, consumer)
    if not failed(rows) then
      for _, row in ipairs(rows) do mine[row[1]] = row[4] end
    end
  end
  return mine[entry]
end

-- The fields of an entry, or nil where somebody has deleted it. All that a stranger has written is kept in the place of
-- the body.
local function fields_at(name, entry)
  local got = redis.call('XRANGE', name, entry, entry)[1]
  local list = got and got[2]
  if not list then return nil end
  local f = read(list)
  if not (f.i and f.b) then f.b = cmsgpack.pack(list) end
  return f
end

-- What was to be kept is gone: nothing can be done but to remember no more of it.
local function vanish(priority, entry, id, key, ttl)
  local index = helper(stream, 'index')
  redis.call('XACK', lane(stream, priority), group, entry)
  if redis.call('HGET', index, id) == place(priority, entry) then redis.call('HDEL', index, id) end
  redis.call('SREM', helper(stream, 'cancel'), id)
  free(stream, id, key, ttl)
  return 0
end

-- Whether it counted: 1 or 0. Everything that may fail for want of memory comes before the message is given up.
local function act(s)
  local action, priority, entry, id, more = s[1], s[2], s[3], s[5], s[8]
  local name = lane(stream, priority)
  if more then
    local r = more[1]
    if r then record(r[1], blob(r[2]), r[3], r[4], id, told) end
    if more[2] then
      for _, successor in ipairs(more[2]) do publish(successor[1], successor[2]) end
    end
  end
  if action == 'retry' then
    local m = more[3]
    local where = store(stream, fields(m), m[4], m[6] or 0)
    redis.call('HSET', helper(stream, 'index'), id, where)
  elseif action == 'release' then
    local f = fields_at(name, entry)
    if not f then return vanish(priority, entry, id, s[6], s[7]) end
    local m = {id, f.t or '', f.b, more[5] > 0 and now() + more[5] * 1000 or 0, tonumber(f.e), tonumber(f.p), f.k, f.l}
    local where = store(stream, fields(m, more[6]), m[4], priority)
    redis.call('HSET', helper(stream, 'index'), id, where)
  elseif action == 'reject' then
    local f = fields_at(name, entry)
    if not f then return vanish(priority, entry, id, s[6], s[7]) end
    local letter = {'id', id, 'b', f.b, 'letter', blob(more[4][1]), 'task', more[4][2], 'queue', more[4][3], 'reason', more[4][4],
      'error', more[4][5], 'attempts', more[4][6]}
    for _, key in ipairs({'e', 'p', 'k', 'l'}) do
      if f[key] then letter[#letter + 1] = key; letter[#letter + 1] = f[key] end
    end
    redis.call('HSET', helper(stream, 'index'), id, 'x' .. redis.call('XADD', dead, '*', unpack(letter)))
    redis.call('SREM', helper(stream, 'cancel'), id)
    free(stream, id, f.k, f.l)
  else
    ended[#ended + 1] = id
    free(stream, id, s[6], s[7])
  end
  gone[priority] = gone[priority] or {}
  table.insert(gone[priority], entry)
  return 1
end

local function acknowledge(priority, entries, taken, ids, prefix, first, times)
  local list = gone[priority] or {}
  gone[priority] = list
  for i, entry in ipairs(entries) do
    if holding(priority, entry) == taken[i] then
      local id = ids[i]
      if prefix and times[i] > 0 then record(prefix .. id, blob(first + i - 1), times[i], true, id, told) end
      if each then redis.call('XACK', lane(stream, priority), group, entry) else held[priority][entry] = nil end
      list[#list + 1] = entry
      ended[#ended + 1] = id
      answers[#answers + 1] = 1
    else
      answers[#answers + 1] = 0
    end
  end
end

though_full(stream)
for _, columns in ipairs(all[1]) do
  local ok, err = pcall(acknowledge, unpack(columns))
  if not ok then problem = err; break end
end

for _, s in ipairs(problem and {} or all[2]) do
  local count = holding(s[2], s[3])
  if count and count == s[4] then
    local ok, counted = pcall(act, s)
    if not ok then problem = counted; break end
    if held[s[2]] then held[s[2]][s[3]] = nil end
    if each then
      redis.call('XACK', lane(stream, s[2]), group, s[3])
    end
    answers[#answers + 1] = counted
  else
    answers[#answers + 1] = 0
  end
end

for priority, entries in pairs(gone) do
  local name = lane(stream, priority)
  if #entries > 0 then
    if not each then redis.call('XACK', name, group, unpack(entries)) end
    redis.call('XDEL', name, unpack(entries))
  end
end
finish(stream, ended, window)
tell(ARGV[5], told)
-- What was settled before something failed is answered: the rest is asked for again, and begins with what fails.
if problem and #answers == 0 then
  if type(problem) == 'table' then return problem end
  return redis.error_reply(problem)
end
return answers
