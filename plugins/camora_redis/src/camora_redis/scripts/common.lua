-- What all scripts share. KEYS[1] is the stream of a queue; all other keys of the queue lie in its slot.
--
-- STREAM            ready messages of priority 0, and those that are lent: the group's pending entries
-- {STREAM}:p:N      the same for priority N
-- {STREAM}:index    job id -> where its message lies; "" -> the state of the queue (below)
-- {STREAM}:later    ids of messages that are due later, by their due time in milliseconds
-- {STREAM}:bodies   their fields
-- {STREAM}:bell     a stream in which a message only wakes a waiting consumer, to look again
-- {STREAM}:done     ids of finished jobs, the latest last: as many as are remembered
-- {STREAM}:key:K    the job that holds the idempotency key K
-- {STREAM}:cancel   ids of lent jobs that somebody wants cancelled
-- {STREAM}:paused   how far the group had read when the queue was paused
--
-- A place in the index: "ENTRY" or "PRIORITY/ENTRY" in a stream; "@" later; "xENTRY" dead; "-" finished.
-- The state of a queue: "r" running or "p" paused, then the priorities in use other than 0, the highest first.

local unpack = unpack or table.unpack

-- In a cluster the last key is one that never exists: the server refuses the script while the slot is moving.
if string.sub(KEYS[#KEYS] or '', -8) == '}:moving' then KEYS[#KEYS] = nil end

-- What is packed (MessagePack) holds no bytes: it says the place of each among the arguments after this one.
local blobs = 1
local function blob(at) return type(at) == 'number' and ARGV[blobs + at] or at end

-- A stream whose name begins with a hash tag has its other keys behind that same tag.
local function helper(stream, name)
  if string.byte(stream) == 123 then return stream .. ':' .. name end
  return '{' .. stream .. '}:' .. name
end

local function lane(stream, priority)
  if priority == 0 then return stream end
  return helper(stream, 'p:' .. priority)
end

local function place(priority, entry)
  if priority == 0 then return entry end
  return priority .. '/' .. entry
end

local function placed(where)
  local priority, entry = string.match(where, '^(-?%d+)/(.+)$')
  if priority then return tonumber(priority), entry end
  return 0, where
end

local clock
local function now()
  if not clock then
    local time = redis.call('TIME')
    clock = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return clock
end

local function failed(answer) return type(answer) == 'table' and answer.err end

-- A full server refuses what may need memory, unless the script has written something already. What drains queues may
-- take a little, because it gives more back: it begins with a write that changes nothing.
local function though_full(stream) redis.call('SREM', helper(stream, 'cancel'), '') end

local function paused(state) return state and string.sub(state, 1, 1) == 'p' end

-- Make the group of a stream where it is missing. That of a paused queue has read all that ever comes.
local ALL = '18446744073709551615-18446744073709551615'
local function create(name, group, state)
  local made = redis.pcall('XGROUP', 'CREATE', name, group, paused(state) and ALL or '0', 'MKSTREAM')
  if failed(made) and string.sub(made.err, 1, 9) ~= 'BUSYGROUP' then return made end
end

local function ring(stream)
  redis.call('XADD', helper(stream, 'bell'), 'MAXLEN', 64, '*', 'ring', '1')
end

local function priorities(state)
  local found = {}
  if state then
    for number in string.gmatch(state, '-?%d+') do found[#found + 1] = tonumber(number) end
  end
  return found
end

-- Keep a priority among those that are in use.
local function use(stream, priority)
  local index = helper(stream, 'index')
  local state = redis.call('HGET', index, '') or 'r'
  local found = priorities(state)
  for _, one in ipairs(found) do if one == priority then return end end
  found[#found + 1] = priority
  table.sort(found, function(a, b) return a > b end)
  redis.call('HSET', index, '', string.sub(state, 1, 1) .. ' ' .. table.concat(found, ' '))
end

-- The fields of a message as they lie in a stream. An envelope is {id, task, body, due, expires, priority, key, ttl}.
local function fields(m, deliveries)
  local f = {'i', m[1], 't', m[2], 'b', blob(m[3])}
  local function add(name, value) f[#f + 1] = name; f[#f + 1] = value end
  if m[5] and m[5] ~= 0 then add('e', string.format('%.0f', m[5])) end
  if m[6] and m[6] ~= 0 then add('p', string.format('%.0f', m[6])) end
  if m[7] and m[7] ~= '' then add('k', m[7]); add('l', tostring(m[8] or 0)) end
  if deliveries and deliveries ~= 0 then add('n', deliveries) end
  return f
end

local function read(list)
  local f = {}
  for i = 1, #list, 2 do f[list[i]] = list[i + 1] end
  return f
end

-- To the ready ones; the place it lies at.
local function append(stream, f, priority)
  local entry = redis.call('XADD', lane(stream, priority), '*', unpack(f))
  return place(priority, entry)
end

local function later(stream, id, f, due)
  local set = helper(stream, 'later')
  redis.call('HSET', helper(stream, 'bodies'), id, cmsgpack.pack(f))
  redis.call('ZADD', set, string.format('%.0f', due), id)
  if redis.call('ZRANK', set, id) == 0 then ring(stream) end
  return '@'
end

-- Store one message: ready, or later when it is not due; the place it lies at.
local function store(stream, f, due, priority)
  if due and due ~= 0 and due > now() then return later(stream, f[2], f, due) end
  local where = append(stream, f, priority)
  if priority ~= 0 then
    use(stream, priority)
    ring(stream)
  end
  return where
end

-- Those of a batch from one number to another: a script can pass only some thousand words to one command.
local MOST = 1000
local function publish_some(stream, list, from, to, answers)
  local index, wanted, places, new = helper(stream, 'index'), {}, {}, {}
  for i = from, to do wanted[#wanted + 1] = list[i][1] end
  local known = redis.call('HMGET', index, unpack(wanted))
  for i = from, to do
    local m = list[i]
    local id, key = m[1], m[7]
    answers[i] = id
    if not known[i - from + 1] and not new[id] then
      local holder
      if key and key ~= '' then
        local name = helper(stream, 'key:' .. key)
        holder = redis.call('GET', name)
        if not holder then redis.call('SET', name, id) end
      end
      if holder and holder ~= id then
        answers[i] = holder
      else
        local where
        if #m == 3 then
          where = redis.call('XADD', stream, '*', 'i', id, 't', m[2], 'b', blob(m[3]))
        else
          where = store(stream, fields(m), m[4], m[6] or 0)
        end
        new[id] = true
        places[#places + 1] = id
        places[#places + 1] = where
      end
    end
  end
  if #places > 0 then redis.call('HSET', index, unpack(places)) end
end

-- Publish a batch that is dedup'd by id and key; the ids that stand for the messages.
local function publish(stream, list)
  local answers = {}
  for from = 1, #list, MOST do publish_some(stream, list, from, math.min(from + MOST - 1, #list), answers) end
  return answers
end

-- The job has ended: its key is taken for its own time only.
local function free(stream, id, key, ttl)
  if not key or key == '' then return end
  local name = helper(stream, 'key:' .. key)
  if redis.call('GET', name) ~= id then return end
  local ms = math.floor((tonumber(ttl) or 0) * 1000)
  if ms > 0 then redis.call('PEXPIRE', name, ms) else redis.call('DEL', name) end
end

-- Remember the ids of finished jobs, and forget the oldest beyond the window.
local function finish(stream, ids, window)
  if #ids == 0 then return end
  local index, done = helper(stream, 'index'), helper(stream, 'done')
  redis.call('SREM', helper(stream, 'cancel'), unpack(ids))
  local size = redis.pcall('RPUSH', done, unpack(ids))
  if failed(size) then
    -- No memory left: then at least this job's is given back.
    redis.call('HDEL', index, unpack(ids))
    return
  end
  local marks = {}
  for _, id in ipairs(ids) do marks[#marks + 1] = id; marks[#marks + 1] = '-' end
  if failed(redis.pcall('HSET', index, unpack(marks))) then redis.call('HDEL', index, unpack(ids)) end
  if size <= window then return end
  local old = redis.call('LPOP', done, math.min(size - window, 1000))
  local places, gone = redis.call('HMGET', index, unpack(old)), {}
  for i, id in ipairs(old) do if places[i] == '-' then gone[#gone + 1] = id end end
  if #gone > 0 then redis.call('HDEL', index, unpack(gone)) end
end

-- Keep the record of a job: a final one stands. Those who wait are to be told of the jobs that end so: `told` gets what
-- the names of their records begin with, then for each its id and the length of its value, 0 for one that is to be
-- fetched. The other values travel along.
local LARGE, values = 512, {}
local function record(name, body, ms, final, id, told)
  local value = (final and 'F' or 'U') .. body
  if not redis.call('SET', name, value, 'PX', ms, 'NX') then
    if redis.call('GETRANGE', name, 0, 0) == 'F' then return end
    redis.call('SET', name, value, 'PX', ms)
  end
  if not final then return end
  if #told == 0 then told[1] = string.sub(name, 1, -#id - 1) end
  local small = #value <= LARGE
  told[#told + 1] = id
  told[#told + 1] = small and #value or 0
  if small then values[#values + 1] = value end
end

-- A message is the length of its head (eight hexadecimal digits), the head, packed, and values. What was done stands where
-- telling it is refused: those who wait look by themselves, too.
local function tell(channel, told)
  if #told == 0 then return end
  local head = cmsgpack.pack(told)
  redis.pcall('PUBLISH', channel, string.format('%08x', #head) .. head .. table.concat(values))
end

-- Workflows: KEYS[1] is the record of one, ARGV[1] its id. All that is kept of it, and the lists of all workflows of its
-- shard, begin with `BASE`, which is in one slot: `{PREFIX}:workflow:`, or in a cluster `{PREFIX#SHARD}:workflow:`.
--
-- BASEall           the ids of all workflows; a sorted set in order of id, as is the next one
-- BASEopen          those that are recorded or run
-- BASEends          those that are finished, by when they may be forgotten
-- BASErecord:ID     name, state, status, created, changed, finished; "runs" where nodes were reopened, "bad" where one has
--                   ended and did not succeed; "p:GATE" -> the last index that was passed
-- BASEmeta:ID       index -> the targets that it feeds, divided by blanks, then "@" and its gate, if it has one
-- BASEspecs:ID      index -> spec; "" -> plan
-- BASEended:ID      index -> what it came to: the length of the status (two bytes), status, outcome
-- BASEruns:ID       index -> how often it was reopened
-- BASElists:ID      "a" -> all indexes; "s" and a node's index -> its sources; "g" and a gate -> those behind it; each as
--                   the first and the last of every stretch, in order, four bytes each
-- BASEwait:J:ID     a set: the sources of J that have not ended
local base, whose = #ARGV > 0 and string.sub(KEYS[1], 1, -#ARGV[1] - 8), ARGV[1]
local function of_all(name) return base .. name end
local function part(kind) return base .. kind .. ':' .. whose end

-- What nodes that have succeeded came to begins with this.
local SUCCEEDED = '\0\9succeeded'

local function waited(target) return base .. 'wait:' .. target .. ':' .. whose end

-- A command on any number of words: a script can pass only some thousand to one.
local function many(command, key, words)
  if #words <= 1000 then return #words > 0 and redis.call(command, key, unpack(words)) or {} end
  local answers = {}
  for from = 1, #words, 1000 do
    local some = redis.call(command, key, unpack(words, from, math.min(from + 999, #words)))
    if type(some) == 'table' then
      for i = 1, #some do answers[from + i - 1] = some[i] end
    end
  end
  return answers
end

-- The targets of a node (texts), each once. Members of a group all have the same ones.
local fed_by = {}
local function fed(meta)
  local found = fed_by[meta]
  if not found then
    local seen = {}
    found = {}
    for one in string.gmatch(string.match(meta, '^[^@]*'), '%d+') do
      if not seen[one] then found[#found + 1] = one end
      seen[one] = true
    end
    fed_by[meta] = found
  end
  return found
end

-- It was written to; the clocks of those who write may differ.
local function touch(changed, moment)
  if tonumber(changed) < tonumber(moment) then redis.call('HSET', part('record'), 'changed', moment) end
end

-- What keeps running workflows going is done in a full server, too (see `though_full`).
local function graph_though_full() redis.call('SREM', part('none'), '') end

-- For how many others a node waits. Members of large groups wait for none: then looking for that many sets is spared.
local few
local function waiting_of(index)
  if few == nil then
    local key = part('lists')
    few = redis.call('HLEN', key) <= 100 and {}
    for _, name in ipairs(few and redis.call('HKEYS', key) or {}) do
      if string.byte(name) == 115 then few[tonumber(string.sub(name, 2))] = true end
    end
  end
  return (not few or few[index]) and redis.call('SCARD', waited(index)) or 0
end

-- Nodes as they are now, six words for each: index, meta, spec, for how many it waits, run, what it came to. Behind the
-- last one that is looked at is the number that is returned: large ones do not all go into one answer. `waits` has what is
-- known of them already.
local shown_bytes = 0
local function shown(indexes, rows, waits)
  local reopened = redis.call('HEXISTS', part('record'), 'runs') == 1
  for from = 1, #indexes, 20 do
    if shown_bytes > 4194304 then return from - 1 end
    local some, runs, at = {unpack(indexes, from, math.min(from + 19, #indexes))}, {}, #rows
    local metas, specs = redis.call('HMGET', part('meta'), unpack(some)), redis.call('HMGET', part('specs'), unpack(some))
    local ends = redis.call('HMGET', part('ended'), unpack(some))
    if reopened then runs = redis.call('HMGET', part('runs'), unpack(some)) end
    for i, index in ipairs(some) do
      if metas[i] then
        local spec, value = specs[i] or '', ends[i] or ''
        local waiting = waits and waits[index] or waiting_of(index)
        rows[at + 1], rows[at + 2], rows[at + 3], rows[at + 4] = index, metas[i], spec, waiting
        rows[at + 5], rows[at + 6] = tonumber(runs[i] or 0), value
        at = at + 6
        shown_bytes = shown_bytes + #spec + #value
      end
    end
  end
  return #indexes
end

-- Keep a key for so many milliseconds more; for longer, where that was asked for.
local function lengthen(key, ms)
  if redis.call('PTTL', key) < tonumber(ms) then redis.call('PEXPIRE', key, ms) end
end
