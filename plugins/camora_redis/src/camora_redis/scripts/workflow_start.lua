-- From now on a workflow runs. KEYS: the record. ARGV: id, now, plan. Answers 0 where there is none.
local state, changed = unpack(redis.call('HMGET', KEYS[1], 'state', 'changed'))
if not state then return 0 end
if state == 'recording' then
  redis.call('HSET', part('specs'), '', ARGV[3])
  redis.call('HSET', KEYS[1], 'state', 'running')
  touch(changed, ARGV[2])
end
return 1
