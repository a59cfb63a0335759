-- Make the groups of some queues where they are missing. KEYS: their streams. ARGV: group.
for _, stream in ipairs(KEYS) do
  though_full(stream)
  local problem = create(stream, ARGV[1], redis.call('HGET', helper(stream, 'index'), ''))
    or create(helper(stream, 'bell'), ARGV[1])
  if problem then return problem end
end
return 1
