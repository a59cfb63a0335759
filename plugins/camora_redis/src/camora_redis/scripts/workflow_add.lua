-- Record nodes. KEYS: the record. ARGV: id, now, {{index, …}, {meta, …}}, packed, then their specs.
-- Answers 0 where nothing is recorded under this id (any more).
local state, changed = unpack(redis.call('HMGET', KEYS[1], 'state', 'changed'))
if state ~= 'recording' then return 0 end
local indexes, metas = unpack(cmsgpack.unpack(ARGV[3]))
local known = many('HMGET', part('meta'), indexes)
local new, meta_words, spec_words, lists, waits, order = {}, {}, {}, {}, {}, {}

local function list(name, index)
  local one = lists[name]
  if not one then
    one = {}
    lists[name] = one
    order[#order + 1] = name
  end
  one[#one + 1] = index
end

for i, index in ipairs(indexes) do
  if not known[i] and not new[index] then
    new[index] = true
    local meta, at = metas[i], #meta_words
    meta_words[at + 1], meta_words[at + 2] = index, meta
    if ARGV[3 + i] ~= '' then
      at = #spec_words
      spec_words[at + 1], spec_words[at + 2] = index, ARGV[3 + i]
    end
    list('a', index)
    for _, target in ipairs(fed(meta)) do
      list('s' .. target, index)
      waits[target] = lists['s' .. target]
    end
    local gate = string.match(meta, '@(.+)$')
    if gate then list('g' .. gate, index) end
  end
end

local function written(stretches)
  local words = {}
  for i, one in ipairs(stretches) do words[i] = struct.pack('>I4I4', one[1], one[2]) end
  return table.concat(words)
end

-- They come in order. Where they do not, all are put in order anew.
local function sorted(packed, some)
  local all, stretches = {}, {}
  for at = 1, #packed, 8 do
    local first, last = struct.unpack('>I4I4', packed, at)
    for index = first, last do all[#all + 1] = index end
  end
  for _, index in ipairs(some) do all[#all + 1] = index end
  table.sort(all)
  for _, index in ipairs(all) do
    local last = stretches[#stretches]
    if last and last[2] == index - 1 then last[2] = index else stretches[#stretches + 1] = {index, index} end
  end
  return written(stretches)
end

local function grown(packed, some)
  local stretches, first, last = {}, nil, nil
  if packed ~= '' then first, last = struct.unpack('>I4I4', packed, #packed - 7) end
  for _, index in ipairs(some) do
    if last and index <= last then return sorted(packed, some) end
    if last and index == last + 1 then
      last = index
    else
      if last then stretches[#stretches + 1] = {first, last} end
      first, last = index, index
    end
  end
  stretches[#stretches + 1] = {first, last}
  return string.sub(packed, 1, -9) .. written(stretches)
end

many('HSET', part('meta'), meta_words)
many('HSET', part('specs'), spec_words)
for target, sources in pairs(waits) do many('SADD', waited(target), sources) end
local before, list_words = many('HMGET', part('lists'), order), {}
for i, name in ipairs(order) do
  list_words[2 * i - 1], list_words[2 * i] = name, grown(before[i] or '', lists[name])
end
many('HSET', part('lists'), list_words)
touch(changed, ARGV[2])
return 1
