-- How far limits are used up. KEYS: of each, the key of its rate and that of its slots.
-- Answers: {now in ms, then for each what is stored of the rate, and who holds slots}.
local answers = {now()}
for i = 1, #KEYS, 2 do
  answers[#answers + 1] = redis.call('GET', KEYS[i])
  answers[#answers + 1] = redis.call('ZRANGEBYSCORE', KEYS[i + 1], '(' .. string.format('%.0f', now()), '+inf')
end
return answers
