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

-- Without a key, they find nothing, and make nothing.
local harmless = {
  {'TIME'},
  {'XADD', key, 'NOMKSTREAM', '*', 'f', 'v'}, {'XGROUP', 'CREATE', key, group, '0'},
  {'XREADGROUP', 'GROUP', group, 'c', 'COUNT', 1, 'STREAMS', key, '>'}, {'XACK', key, group, '0-1'}, {'XDEL', key, '0-1'},
  {'XTRIM', key, 'MAXLEN', 0}, {'XPENDING', key, group}, {'XCLAIM', key, group, 'c', 0, '0-1'}, {'XINFO', 'CONSUMERS', key, group},
  {'XRANGE', key, '-', '+', 'COUNT', 1}, {'XLEN', key},
  {'HGET', key, 'f'}, {'HMGET', key, 'f'}, {'HEXISTS', key, 'f'}, {'HSET', key, 'one', 'two', 'three'}, {'HDEL', key, 'f'}, {'HLEN', key},
  {'HKEYS', key}, {'HSCAN', key, 0}, {'HGETALL', key}, {'HINCRBY', key, 'f', 'no number'},
  {'SREM', key, 'm'}, {'SMEMBERS', key}, {'SMISMEMBER', key, 'm'}, {'SCARD', key},
  {'ZADD', key, 'XX', 0, 'm'}, {'ZREM', key, 'm'}, {'ZSCORE', key, 'm'}, {'ZRANK', key, 'm'}, {'ZRANGE', key, 0, 0},
  {'ZRANGEBYSCORE', key, 0, 0}, {'ZRANGEBYLEX', key, '-', '+'}, {'ZCOUNT', key, 0, 0}, {'ZCARD', key}, {'ZREMRANGEBYSCORE', key, 0, 0},
  {'LLEN', key}, {'LRANGE', key, 0, 0}, {'LINDEX', key, 0}, {'LTRIM', key, 0, 0},
  {'GET', key}, {'MGET', key}, {'GETRANGE', key, 0, 0}, {'SET', key, '', 'XX'}, {'EXISTS', key},
  {'PEXPIRE', key, 1}, {'PEXPIREAT', key, 1}, {'PTTL', key}, {'PERSIST', key}, {'UNLINK', key},
  {'PUBLISH', channel, ''},
}
for _, call in ipairs(harmless) do try(unpack(call)) end

-- These make something, and it is taken back.
if try('DEL', key) then
  if try('LPOP', key) and try('RPUSH', key, 'v') then try('DEL', key) end
  if try('SADD', key, 'm') then try('DEL', key) end
end
return answers
