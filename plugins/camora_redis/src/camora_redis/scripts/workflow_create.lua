-- Begin to record a workflow. KEYS: its record. ARGV: id, name, plan, created, changed. Answers 0 where there is one.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'name', ARGV[2], 'state', 'recording', 'created', ARGV[4], 'changed', ARGV[5])
if ARGV[3] ~= '' then redis.call('HSET', part('specs'), '', ARGV[3]) end
redis.call('ZADD', of_all('all'), 0, ARGV[1])
redis.call('ZADD', of_all('open'), 0, ARGV[1])
return 1
