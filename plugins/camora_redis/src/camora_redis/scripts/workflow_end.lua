-- Nodes have ended, of any workflows of one shard. KEYS: the record of the first one. ARGV: its id, now,
-- {{id, {index, …}, {run, …} or false} …}, packed, then what each came to.
-- Answers for each workflow: nothing where there is none such; else {how many have not ended, one letter for each mark
-- ("0" no such node or run, "1" it stands, "2" another one stood before), {mark, target, …}, nodes as `shown` shows them,
-- and those that are too large to be shown together}.
local outcomes, answers = 3, {}

local function told(indexes, wanted)
  local changed, reopened = unpack(redis.call('HMGET', part('record'), 'changed', 'runs'))
  if not changed then return false end
  local meta_key, ended_key = part('meta'), part('ended')
  local metas, ends, runs = many('HMGET', meta_key, indexes), many('HMGET', ended_key, indexes), {}
  if reopened then runs = many('HMGET', part('runs'), indexes) end
  local letters, new, words, gone = {}, {}, {}, {}
  -- Whether something may follow; of members of a large group, all but the last are quiet. `same`: with equal targets.
  local bad, stood, same = false, false, {}

  for i, index in ipairs(indexes) do
    local meta = metas[i]
    if not meta or ((reopened or wanted) and tonumber(runs[i] or 0) ~= (wanted and wanted[i] or 0)) then
      letters[i] = '0'
    else
      local list = same[meta]
      if not list then
        list = {}
        same[meta] = list
      end
      if ends[i] or new[index] then
        letters[i], stood = '2', true
        ends[i] = ends[i] or new[index]
      else
        local value, at = ARGV[outcomes + i], #words
        letters[i], ends[i], new[index] = '1', value, value
        words[at + 1], words[at + 2] = index, value
        bad = bad or string.sub(value, 1, #SUCCEEDED) ~= SUCCEEDED
        list[#list + 1] = index
      end
    end
  end

  local targets, waits = {}, {}
  for meta, list in pairs(same) do
    for _, target in ipairs(fed(meta)) do
      if not waits[target] then
        waits[target] = 'unknown'
        targets[#targets + 1] = target
      end
      if #list > 0 then gone[#gone + 1] = {target, list} end
    end
  end

  if #words > 0 then
    -- What takes something away comes first: then the rest is done in a full server, too.
    if #gone == 0 then graph_though_full() end
    for _, one in ipairs(gone) do many('SREM', waited(one[1]), one[2]) end
    many('HSET', ended_key, words)
    if bad then redis.call('HSET', part('record'), 'bad', 1) end
    touch(changed, ARGV[2])
  end

  -- Of each target for how many it waits; nothing of those that there are not, or that have ended.
  local recorded, free = many('HMGET', meta_key, targets), false
  for i, target in ipairs(targets) do
    local open = recorded[i] and redis.call('HEXISTS', ended_key, target) == 0
    waits[target] = open and redis.call('SCARD', waited(target)) or false
    free = free or waits[target] == 0
  end

  local open = redis.call('HLEN', meta_key) - redis.call('HLEN', ended_key)
  if not (bad or stood or free) then return {open, table.concat(letters), {}, {}, {}} end

  local follow, named, seen, known = {}, {}, {}, {}
  local function name(index)
    if not seen[index] then named[#named + 1] = index end
    seen[index] = true
  end
  for i, letter in ipairs(letters) do
    if letter ~= '0' then
      local well = string.sub(ends[i], 1, #SUCCEEDED) == SUCCEEDED
      for _, target in ipairs(fed(metas[i])) do
        local waiting = waits[target]
        if waiting == 0 or (waiting and not well) then
          local index = tonumber(target)
          known[index] = waiting
          follow[#follow + 1] = i
          follow[#follow + 1] = index
          name(index)
        end
      end
      if letter == '2' then name(indexes[i]) end
    end
  end

  local rows, large = {}, {}
  for i = #named > 0 and shown(named, rows, known) + 1 or 1, #named do large[#large + 1] = named[i] end
  return {open, table.concat(letters), follow, rows, large}
end

for i, one in ipairs(cmsgpack.unpack(ARGV[3])) do
  whose, few = one[1], nil
  answers[i] = told(one[2], one[3])
  outcomes = outcomes + #one[2]
end
return answers
