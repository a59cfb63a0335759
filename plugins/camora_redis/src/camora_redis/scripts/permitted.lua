-- What the user may not do. KEYS[1]: the stream of a queue that nobody uses. ARGV: group, a channel.
-- Answers with the names of the commands; "~" stands for the keys, "&" for the channel.
-- Each call is made so that it changes nothing, or is undone by the next one.
local stream, group, channel = KEYS[1], ARGV[1], ARGV[2]
local key, answers, seen = helper(stream, 'permitted'), {}, {}

local function refused(name)
  if not seen[name] then
    seen[name] = true
    answers[#answers + 1] = name
  end
end

local function try(...)
  local answer = redis.pcall(...)
  if not failed(answer) then return true end
  local said = string.lower(answer.err)
  if string.find(said, "channel", 1, true) then refused('&')
  elseif string.find(said, "access", 1, true) and string.find(said, "key", 1, true) then refused('~')
  elseif string.find(said, "can't run this command", 1, true) or string.find(said, "no permissions to run", 1, true) then
    refused(string.lower((...)))
    return false
  end
  return true
end

try('TIME')
try('XADD', key, 'NOMKSTREAM', '*', 'f', 'v')
try('XGROUP', 'CREATE', key, group, '0')
try('XREADGROUP', 'GROUP', group, 'c', 'COUNT', 1, 'STREAMS', key, '>')
try('XACK', key, group, '0-1')
try('XDEL', key, '0-1')
try('XPENDING', key, group)
try('XCLAIM', key, group, 'c', 0, '0-1')
try('XINFO', 'CONSUMERS', key, group)
try('XRANGE', key, '-', '+', 'COUNT', 1)
try('XLEN', key)
for _, name in ipairs({'HGET', 'HDEL', 'SREM', 'SMISMEMBER', 'ZSCORE', 'ZREM', 'ZRANK'}) do
  try(name, key, 'f')
end
try('HMGET', key, 'f')
try('HLEN', key)
try('HSET', key, 'one', 'two', 'three')
try('HSCAN', key, 0)
try('SMEMBERS', key)
try('ZADD', key, 'XX', 0, 'm')
try('ZRANGE', key, 0, 0)
try('ZRANGEBYSCORE', key, 0, 0)
try('ZCOUNT', key, 0, 0)
try('LLEN', key)
try('GET', key)
try('MGET', key)
try('GETRANGE', key, 0, 0)
try('SET', key, '', 'XX')
try('PEXPIRE', key, 1)
if try('DEL', key) then
  if try('LPOP', key) and try('RPUSH', key, 'v') then try('DEL', key) end
  if try('SADD', key, 'm') then try('DEL', key) end
end
try('PUBLISH', channel, '')
return answers
