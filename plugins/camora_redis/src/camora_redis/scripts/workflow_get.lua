-- One workflow. KEYS: the record. ARGV: id. Answers {nodes, how many have not ended, record, plan}.
local record = redis.call('HGETALL', KEYS[1])
if #record == 0 then return false end
local nodes = redis.call('HLEN', part('meta'))
return {nodes, nodes - redis.call('HLEN', part('ended')), record, redis.call('HGET', part('specs'), '') or ''}
