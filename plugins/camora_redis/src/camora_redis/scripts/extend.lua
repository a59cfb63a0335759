-- Make leases last their full length from now. ARGV: group, consumer, then priority, entry, times taken of each.
-- Answers with 1 for each that is still this consumer's, else 0. Looking does not count as taking.
local stream, group, consumer, answers = KEYS[1], ARGV[1], ARGV[2], {}
for i = 3, #ARGV, 3 do
  local name = lane(stream, tonumber(ARGV[i]))
  local row = redis.pcall('XPENDING', name, group, ARGV[i + 1], ARGV[i + 1], 1, consumer)
  local mine = not failed(row) and row[1] and row[1][4] == tonumber(ARGV[i + 2])
  if mine then redis.call('XCLAIM', name, group, consumer, 0, ARGV[i + 1], 'JUSTID') end
  answers[#answers + 1] = mine and 1 or 0
end
return answers
