-- All is over. KEYS: the record. ARGV: id, now, status, how many milliseconds it is kept.
-- Answers 0 unless it runs with nothing open.
local state, changed = unpack(redis.call('HMGET', KEYS[1], 'state', 'changed'))
if state ~= 'running' then return 0 end
if redis.call('HLEN', part('meta')) ~= redis.call('HLEN', part('ended')) then return 0 end
graph_though_full()
local ends = of_all('ends')
redis.call('HSET', KEYS[1], 'state', 'finished', 'status', ARGV[3], 'finished', ARGV[2])
touch(changed, ARGV[2])
-- All its sets of what is waited for are empty, so they are gone.
for _, kind in ipairs({'record', 'meta', 'specs', 'ended', 'runs', 'lists'}) do redis.call('PEXPIRE', part(kind), ARGV[4]) end
redis.call('ZREM', of_all('open'), ARGV[1])
redis.call('ZADD', ends, string.format('%.0f', now() + ARGV[4]), ARGV[1])
-- The ids of those that have expired go by and by.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', now() - 1000, 'LIMIT', 0, 10)) do
  redis.call('ZREM', ends, id)
  if redis.call('EXISTS', of_all('record:') .. id) == 0 then redis.call('ZREM', of_all('all'), id) end
end
return 1
