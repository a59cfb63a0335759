-- Grant asks all of their limits or none, in order. KEYS: the rates, slots and holders that the asks name by number.
-- ARGV: lease in ms, then of each ask: holder, number of its key (0: it wants no slots), how many limits it has, and of
-- each of them: number of its key, most, seconds of its window (0: slots).
-- Answers with 0 for each ask that is granted, else the ms after which asking again makes sense.
--
-- A rate is a string: its window as camora.windows keeps it, {seconds, bucket, grants, bucket, grants …} packed. Slots
-- are a sorted set of holders, by the moment their lease lapses. A holder is the set of slots that it holds.
local lease = tonumber(ARGV[1])
local windows, changed, answers = {}, {}, {}

local function span(per) return math.ceil(per * 1000) end
local function length(per) return math.max(1, math.ceil(per * 1000 / 100)) end

-- What still counts of a window.
local function alive(stored)
  local window, per = {per = stored[1], total = 0}, stored[1]
  for i = 2, #stored, 2 do
    if (stored[i] + 1) * length(per) + span(per) > now() then
      window[#window + 1] = {stored[i], stored[i + 1]}
      window.total = window.total + stored[i + 1]
    end
  end
  return window
end

local function window_of(key, per)
  local window = windows[key]
  if not window then
    local stored = redis.call('GET', key)
    window = alive(stored and cmsgpack.unpack(stored) or {per})
  end
  if window.per ~= per then
    -- Its length was changed, so its buckets have another length: what counts is taken as granted just now.
    local total = window.total
    window = {per = per, total = total}
    if total > 0 then window[1] = {math.floor(now() / length(per)), total} end
  end
  windows[key] = window
  return window
end

-- One more grant, and 0; or the ms until there is room for it.
local function admit(window, most)
  local over, per = window.total - most, window.per
  if over < 0 then
    local bucket, last = math.floor(now() / length(per)), window[#window]
    if last and last[1] >= bucket then last[2] = last[2] + 1 else window[#window + 1] = {bucket, 1} end
    window.total = window.total + 1
    return 0
  end
  for _, one in ipairs(window) do
    over = over - one[2]
    if over < 0 then return (one[1] + 1) * length(per) + span(per) - now() end
  end
  return span(per)
end

local function take_back(window)
  local last = window[#window]
  last[2] = last[2] - 1
  window.total = window.total - 1
  if last[2] == 0 then window[#window] = nil end
end

local function write(key, window)
  local packed, last, per = {window.per}, window[#window], window.per
  for _, one in ipairs(window) do packed[#packed + 1] = one[1]; packed[#packed + 1] = one[2] end
  redis.call('SET', key, cmsgpack.pack(packed), 'PX', (last[1] + 1) * length(per) + span(per) - now())
end

-- What lapses later than this was granted before the clock was set back, as leases are not that different.
local latest = now() + math.max(10 * lease, 600000)

local function slot_in(key, holder, most)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now())
  -- Who is alive keeps it before that.
  for _, late in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. string.format('%.0f', latest), '+inf')) do
    redis.call('ZADD', key, now() + lease + 1, late)
  end
  if redis.call('ZSCORE', key, holder) or redis.call('ZCARD', key) < most then return 0 end
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if not first[2] then return 1000 end
  return math.min(1000, math.max(1, tonumber(first[2]) - now()))
end

-- Not before this moment; what holds for longer already goes on holding.
local function expire(key, at)
  local left = redis.call('PTTL', key)
  if left < 0 or now() + left < at then redis.call('PEXPIREAT', key, at) end
end

-- One ms more, because the clock is cut to whole ones: a lease is never shorter than promised.
local function hold(slots, holder, name)
  local till = now() + lease + 1
  for _, key in ipairs(slots) do
    redis.call('ZADD', key, till, holder)
    redis.call('SADD', name, key)
    -- A holder whose slots are nowhere has lost them: they must not be the first to go.
    expire(key, till + 1000)
    expire(name, till)
  end
end

local at = 2
while at <= #ARGV do
  local holder, name, count = ARGV[at], KEYS[tonumber(ARGV[at + 1])], tonumber(ARGV[at + 2])
  local wait, charged, slots = 0, {}, {}
  for i = at + 3, at + 3 * count, 3 do
    local key, most, per = KEYS[tonumber(ARGV[i])], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
    local delay
    if per > 0 then
      delay = admit(window_of(key, per), most)
      if delay == 0 then charged[#charged + 1] = key end
    else
      delay = slot_in(key, holder, most)
      slots[#slots + 1] = key
    end
    wait = math.max(wait, delay)
  end
  if wait == 0 then
    for _, key in ipairs(charged) do changed[key] = true end
    hold(slots, holder, name)
  else
    for _, key in ipairs(charged) do take_back(windows[key]) end
  end
  answers[#answers + 1] = wait
  at = at + 3 + 3 * count
end

for key in pairs(changed) do write(key, windows[key]) end
return answers
