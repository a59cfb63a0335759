-- Send something to a job. KEYS: its journal. ARGV: how many milliseconds it is kept at least, name, value, the id of the
-- post. Answers its number.
--
-- "p", the length of a name, ":", the name and the id of a post -> its number; "f" and a name -> below which number none is free
local name = ARGV[2]
local post, free = 'p' .. #name .. ':' .. name .. ARGV[4], 'f' .. name
local number = redis.call('HGET', KEYS[1], post)
if not number then
  number = tonumber(redis.call('HGET', KEYS[1], free) or 0)
  while redis.call('HEXISTS', KEYS[1], 'e' .. name .. '/' .. number) == 1 do number = number + 1 end
  redis.call('HSET', KEYS[1], 'e' .. name .. '/' .. number, ARGV[3], post, number, free, number + 1)
end
lengthen(KEYS[1], ARGV[1])
return tonumber(number)
