-- Free the slots of holders. KEYS: the holders; ARGV: who they are.
for i, name in ipairs(KEYS) do
  for _, key in ipairs(redis.call('SMEMBERS', name)) do redis.call('ZREM', key, ARGV[i]) end
  redis.call('DEL', name)
end
