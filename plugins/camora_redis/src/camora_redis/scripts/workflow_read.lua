-- Nodes by their indexes. KEYS: the record. ARGV: id, {index, …}, packed.
-- Answers {how many of these were looked at, nodes as `shown` shows them}.
local rows = {}
return {shown(cmsgpack.unpack(ARGV[2]), rows), rows}
