-- A page of one shard's workflows. KEYS: a record without an id. ARGV: nothing, after which id, how many at most,
-- in which state ('' for any), changed before when ('' for any), finished how ('' for any).
-- Answers {1 if there may be more, the last id that was looked at, {id, nodes, how many have not ended, record …} …}.
local last, left, state, before, status = ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5]), ARGV[6]
local names = of_all((state == 'recording' or state == 'running') and 'open' or 'all')
local rows, more, looks = {}, 1, 1000

local function look(id)
  local record, f = redis.call('HGETALL', of_all('record:') .. id), {}
  if #record == 0 then
    for _, name in ipairs({'all', 'open', 'ends'}) do redis.call('ZREM', of_all(name), id) end
    return
  end
  for i = 1, #record, 2 do f[record[i]] = record[i + 1] end
  if (state ~= '' and f.state ~= state) or (before and tonumber(f.changed) >= before) then return end
  if status ~= '' and f.status ~= status then return end
  local nodes = redis.call('HLEN', of_all('meta:') .. id)
  rows[#rows + 1] = {id, nodes, nodes - redis.call('HLEN', of_all('ended:') .. id), record}
  left = left - 1
end

while more == 1 and left > 0 and looks > 0 do
  local ids = redis.call('ZRANGEBYLEX', names, last == '' and '-' or '(' .. last, '+', 'LIMIT', 0, math.min(left, 100))
  if #ids == 0 then more = 0 end
  for _, id in ipairs(ids) do
    look(id)
    last, looks = id, looks - 1
  end
end
return {more, last, rows}
