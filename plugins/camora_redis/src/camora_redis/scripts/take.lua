-- Lend messages of some queues to a consumer. KEYS: their streams, in the order of preference.
-- ARGV: group, consumer, how many, whether to look for lapsed leases, then the bells heard: stream number, entry …
-- Answers: {ms until something is due or -1, ms until leases should be looked at again or -1, how many priorities are in
--           use other than 0, {stream number, priority, {entry, …}} … , where an entry is {id, fields[, times taken]}}.
local group, consumer, left, sweep = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'
local lanes, others, soon, again, answer, bells = {}, 0, -1, -1, {}, {}

local function sooner(a, b) if a < 0 or b < a then return b end return a end

-- A group may be missing where somebody has emptied the server, or a master fell before it told its replicas.
local function grouped(stream, ...)
  local got = redis.pcall(...)
  if failed(got) and (string.find(got.err, 'NOGROUP') or string.find(got.err, 'no such key')) then
    local problem = create(stream, group)
    if problem then return error(problem) end
    got = redis.pcall(...)
  end
  if failed(got) then return error(got) end
  return got
end

-- Move what is due to the ready ones; whether there was anything of another priority than 0 among it.
local function promote(stream)
  local urgent = false
  local set, bodies = helper(stream, 'later'), helper(stream, 'bodies')
  local first = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')
  if #first == 0 then return urgent end
  if tonumber(first[2]) <= now() then
    local due = redis.call('ZRANGEBYSCORE', set, '-inf', now(), 'LIMIT', 0, 200)
    local bodies_of, places = redis.call('HMGET', bodies, unpack(due)), {}
    for i, id in ipairs(due) do
      if bodies_of[i] then
        local f = cmsgpack.unpack(bodies_of[i])
        local priority = tonumber(read(f).p or 0)
        places[#places + 1] = id
        places[#places + 1] = append(stream, f, priority)
        if priority ~= 0 then
          use(stream, priority)
          urgent = true
          -- Who waits does not wait at this priority's stream.
          ring(stream)
          bells[helper(stream, 'bell')] = true
        end
      end
    end
    if #places > 0 then redis.call('HSET', helper(stream, 'index'), unpack(places)) end
    redis.call('ZREM', set, unpack(due))
    redis.call('HDEL', bodies, unpack(due))
    first = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')
    if #first == 0 then return urgent end
  end
  soon = sooner(soon, math.max(0, tonumber(first[2]) - now()))
  return urgent
end

-- The names of consumers end with the length of their leases in milliseconds.
local function lapsed(stream, number, priority, bell)
  local found = {}
  for _, one in ipairs(grouped(stream, 'XINFO', 'CONSUMERS', stream, group)) do
    local info = read(one)
    local lease = tonumber(string.match(info.name, '|(%d+)$') or 30000)
    if info.pending > 0 then
      again = sooner(again, math.max(20, math.floor(lease / 3)))
      local patience = bell and 10000 or lease
      local rows = left > 0 and redis.call('XPENDING', stream, group, 'IDLE', patience, '-', '+', left, info.name) or {}
      for _, row in ipairs(rows) do
        if bell then
          redis.call('XACK', stream, group, row[1])
        else
          local got = redis.call('XCLAIM', stream, group, consumer, lease, row[1])
          if got[1] and got[1][2] then
            found[#found + 1] = {row[1], got[1][2], row[4] + 1}
            left = left - 1
          else
            redis.call('XACK', stream, group, row[1])
          end
        end
      end
    elseif info.name ~= consumer and info.idle > math.max(60000, 10 * lease) then
      redis.call('XGROUP', 'DELCONSUMER', stream, group, info.name)
    end
  end
  if #found > 0 then answer[#answer + 1] = {number, priority, found} end
end

though_full(KEYS[1])
for i = 5, #ARGV, 2 do
  local bell = helper(KEYS[tonumber(ARGV[i])], 'bell')
  redis.call('XACK', bell, group, ARGV[i + 1])
  redis.call('XDEL', bell, ARGV[i + 1])
  bells[bell] = true
end

for number, stream in ipairs(KEYS) do
  local state = redis.call('HGET', helper(stream, 'index'), '')
  -- What has come due may be the first of its priority.
  if not paused(state) and promote(stream) then state = redis.call('HGET', helper(stream, 'index'), '') end
  local found = priorities(state)
  others = others + #found
  if not paused(state) then
    lanes[#lanes + 1] = {0, number, stream}
    for _, priority in ipairs(found) do lanes[#lanes + 1] = {priority, number, lane(stream, priority)} end
  end
  if sweep then lapsed(helper(stream, 'bell'), number, 0, true) end
end

if others > 0 then
  table.sort(lanes, function(a, b)
    if a[1] ~= b[1] then return a[1] > b[1] end
    return a[2] < b[2]
  end)
end

for _, one in ipairs(lanes) do
  if sweep then lapsed(one[3], one[2], one[1]) end
  if left > 0 then
    local got = grouped(one[3], 'XREADGROUP', 'GROUP', group, consumer, 'COUNT', left, 'STREAMS', one[3], '>')
    if got then
      local entries = got[1][2]
      left = left - #entries
      answer[#answer + 1] = {one[2], one[1], entries}
    end
  end
end

-- Where all was taken, whoever else would hear these bells would look in vain.
if left > 0 then
  for bell in pairs(bells) do redis.call('XTRIM', bell, 'MAXLEN', 0) end
end

return {soon, again, others, unpack(answer)}
