-- What a consumer has on loan, as the server knows it, is lent to it anew: its leases last their full length from now.
-- What has lapsed is left to whoever looks for that.
-- KEYS: streams of queues. ARGV: group, consumer. Answers as `take` does, without the numbers before.
local group, consumer, answer = ARGV[1], ARGV[2], {}
local lease = tonumber(string.match(consumer, '|(%d+)$') or 30000)
for number, stream in ipairs(KEYS) do
  local lanes = {0, unpack(priorities(redis.call('HGET', helper(stream, 'index'), '')))}
  for _, priority in ipairs(lanes) do
    local name, found = lane(stream, priority), {}
    local rows = redis.pcall('XPENDING', name, group, '-', '+', 10000, consumer)
    if not failed(rows) then
      for _, row in ipairs(rows) do
        local got = row[3] < lease and redis.call('XRANGE', name, row[1], row[1]) or {}
        if got[1] then
          redis.call('XCLAIM', name, group, consumer, 0, row[1], 'JUSTID')
          found[#found + 1] = {row[1], got[1][2], row[4]}
        end
      end
    end
    if #found > 0 then answer[#answer + 1] = {number, priority, found} end
  end
end
return answer
