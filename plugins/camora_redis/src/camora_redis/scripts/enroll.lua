-- Make the groups of some queues where they are missing. KEYS: their streams. ARGV: group.
for _, stream in ipairs(KEYS) do
  though_full(stream)
  for _, name in ipairs({stream, helper(stream, 'bell')}) do
    local made = redis.pcall('XGROUP', 'CREATE', name, ARGV[1], '0', 'MKSTREAM')
    if failed(made) and string.sub(made.err, 1, 9) ~= 'BUSYGROUP' then return made end
  end
end
return 1
