-- Keep records. ARGV: the channel to tell, the records, packed: {id, {key, body, milliseconds, final}}, and blobs. In a
-- cluster all of them are of one queue, that of KEYS[1].
local told = {}
blobs = 2
for _, one in ipairs(cmsgpack.unpack(ARGV[2])) do
  local r = one[2]
  record(r[1], blob(r[2]), r[3], r[4], one[1], told)
end
tell(ARGV[1], told)
return 'OK'
