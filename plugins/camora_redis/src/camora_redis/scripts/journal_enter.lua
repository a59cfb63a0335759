-- Work at a job's journal, or enter something into it. KEYS: the journal. ARGV: token, how many milliseconds it is kept at
-- least, and for an entry its name and value. Answers all fields, or the value that stands; nothing to an old token.
--
-- "t" -> the greatest token; "e" and a name -> an entry; the others: see journal_post.lua.
local known, token = redis.call('HGET', KEYS[1], 't'), ARGV[1]
-- They may be longer than the numbers of a script are exact.
if known and (#known > #token or (#known == #token and known > token)) then return false end
if known ~= token then redis.call('HSET', KEYS[1], 't', token) end
lengthen(KEYS[1], ARGV[2])
if not ARGV[3] then return redis.call('HGETALL', KEYS[1]) end
local stands = redis.call('HGET', KEYS[1], 'e' .. ARGV[3])
if stands then return stands end
redis.call('HSET', KEYS[1], 'e' .. ARGV[3], ARGV[4])
return ARGV[4]
