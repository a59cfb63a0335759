-- Forget a workflow. KEYS: the record. ARGV: id, the state that it has to be in or nothing. Answers how many there were.
local found = redis.call('EXISTS', KEYS[1])
local state = redis.call('HGET', KEYS[1], 'state')
if ARGV[2] ~= '' and ARGV[2] ~= state then return 0 end
if state and state ~= 'finished' then
  for _, name in ipairs(redis.call('HKEYS', part('lists'))) do
    if string.sub(name, 1, 1) == 's' then redis.call('UNLINK', waited(string.sub(name, 2))) end
  end
end
for _, kind in ipairs({'record', 'meta', 'specs', 'ended', 'runs', 'lists'}) do redis.call('UNLINK', part(kind)) end
for _, name in ipairs({'all', 'open', 'ends'}) do redis.call('ZREM', of_all(name), ARGV[1]) end
return found
