-- Change schedules, all that is asked for or nothing. KEYS: definitions, states, due, lent, mark.
-- ARGV: what is to be done, the channel of changes, a new mark, then the words of each schedule (below).
--
-- definitions  key -> what was declared, packed; no script looks into it
-- states       key -> {group, version, paused, last, last job, next, receipt of its loan}, packed; false for none
-- due          keys by their next tick: those that have one and are not paused
-- lent         keys by the end of their loan's lease, be it over or not
-- mark         another text after every change that wakes schedulers
local definitions, states, due, lent, mark = unpack(KEYS)
local GROUP, VERSION, PAUSED, LAST, JOB, NEXT, RECEIPT = 1, 2, 3, 4, 5, 6, 7

local function moment(text) return text ~= '' and tonumber(text) end

local function read_state(key)
  local packed = redis.call('HGET', states, key)
  return packed and cmsgpack.unpack(packed)
end

local function write_state(key, state)
  state[VERSION] = state[VERSION] + 1
  redis.call('HSET', states, key, cmsgpack.pack(state))
  if state[PAUSED] or not state[NEXT] then
    redis.call('ZREM', due, key)
  else
    redis.call('ZADD', due, state[NEXT], key)
  end
  if not state[RECEIPT] then redis.call('ZREM', lent, key) end
end

local function tell()
  -- Where nothing is kept, nothing stays behind.
  if redis.call('EXISTS', definitions) == 1 then redis.call('SET', mark, ARGV[3]) else redis.call('DEL', mark) end
  redis.call('PUBLISH', ARGV[2], ARGV[3])
end

local change = {}

-- Words: key, digest of the definition that it replaces ('' for none, '-' for any), definition, group, 1 if it is
-- planned anew, next tick; and for one that is new: 1 if paused, last, last job.
-- Answers 1; or 0 when a definition is not what it was thought to be, and then nothing was done.
function change.put()
  for i = 4, #ARGV, 9 do
    local known = redis.call('HGET', definitions, ARGV[i])
    if ARGV[i + 1] ~= '-' and ARGV[i + 1] ~= (known and redis.sha1hex(known) or '') then return 0 end
  end
  for i = 4, #ARGV, 9 do
    local key, state = ARGV[i], read_state(ARGV[i])
    if not state then
      state = {'', 0, ARGV[i + 6] == '1', moment(ARGV[i + 7]), ARGV[i + 8], moment(ARGV[i + 5]), false}
    elseif ARGV[i + 4] == '1' then
      state[NEXT], state[RECEIPT] = moment(ARGV[i + 5]), false
    end
    state[GROUP] = ARGV[i + 3]
    redis.call('HSET', definitions, key, ARGV[i + 2])
    write_state(key, state)
  end
  tell()
  return 1
end

-- Words: key. Answers how many there were.
function change.remove()
  local gone = 0
  for i = 4, #ARGV do
    gone = gone + redis.call('HDEL', definitions, ARGV[i])
    redis.call('HDEL', states, ARGV[i])
    redis.call('ZREM', due, ARGV[i])
    redis.call('ZREM', lent, ARGV[i])
  end
  if gone > 0 then tell() end
  return gone
end

-- Words: key, 1 paused or 0 not ('' leaves that), 1 if it is planned anew, next tick. Answers how many there are.
function change.pause()
  local found = 0
  for i = 4, #ARGV, 4 do
    local state = read_state(ARGV[i])
    if state then
      found = found + 1
      if ARGV[i + 1] ~= '' then state[PAUSED] = ARGV[i + 1] == '1' end
      if ARGV[i + 2] == '1' then state[NEXT], state[RECEIPT] = moment(ARGV[i + 3]), false end
      write_state(ARGV[i], state)
    end
  end
  if found > 0 then tell() end
  return found
end

-- Words: key, receipt, next tick, last ('' when nothing fired), last job. Answers 1, or 0 when the loan is over.
-- Schedulers are not woken: who advances one asks himself what comes next.
function change.advance()
  local key, state = ARGV[4], read_state(ARGV[4])
  if not state or state[RECEIPT] ~= ARGV[5] then return 0 end
  state[NEXT], state[RECEIPT] = moment(ARGV[6]), false
  if ARGV[7] ~= '' then state[LAST], state[JOB] = moment(ARGV[7]), ARGV[8] end
  write_state(key, state)
  return 1
end

return change[ARGV[1]]()
