-- A page of nodes. KEYS: the record. ARGV: id, the name of a list, after which index, how many at most, and which: "open",
-- those that have not ended; "bad", those that have, and did not succeed; or "". Then 1 if only their ends are wanted.
-- Answers {1 if there may be more, the last index that was looked at, nodes as `shown` or `bare` show them}.
local after, most, only = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local packed = redis.call('HGET', part('lists'), ARGV[2]) or ''
local found, last, more, looks, rows = {}, after, 0, 5000, {}
if only == 'bad' and not redis.call('HGET', KEYS[1], 'bad') then return {0, after, rows} end

-- The first stretch that ends behind `after`.
local low, high = 0, #packed / 8
while low < high do
  local middle = math.floor((low + high) / 2)
  local _, ends = struct.unpack('>I4I4', packed, 8 * middle + 1)
  if ends > after then high = middle else low = middle + 1 end
end

local ended_key = part('ended')
local function wanted(index)
  if only == '' then return true end
  if only == 'open' then return redis.call('HEXISTS', ended_key, index) == 0 end
  local value = redis.call('HGET', ended_key, index)
  return value and string.sub(value, 1, #SUCCEEDED) ~= SUCCEEDED
end

for at = 8 * low + 1, #packed, 8 do
  local first, ends = struct.unpack('>I4I4', packed, at)
  for index = math.max(first, after + 1), ends do
    if #found == most or looks == 0 then more = 1; break end
    if wanted(index) then found[#found + 1] = index end
    last, looks = index, looks - 1
  end
  if more == 1 then break end
end

-- As `shown`, three words for each: index, run, what it came to.
local function bare(indexes)
  local reopened = redis.call('HEXISTS', KEYS[1], 'runs') == 1
  for from = 1, #indexes, 100 do
    if shown_bytes > 4194304 then return from - 1 end
    local some, runs, at = {unpack(indexes, from, math.min(from + 99, #indexes))}, {}, #rows
    local ends = redis.call('HMGET', ended_key, unpack(some))
    if reopened then runs = redis.call('HMGET', part('runs'), unpack(some)) end
    for i, index in ipairs(some) do
      local value = ends[i] or ''
      rows[at + 1], rows[at + 2], rows[at + 3] = index, tonumber(runs[i] or 0), value
      at = at + 3
      shown_bytes = shown_bytes + #value
    end
  end
  return #indexes
end

local told = ARGV[6] == '1' and bare(found) or shown(found, rows)
if told < #found then more, last = 1, found[told] end
return {more, last, rows}
