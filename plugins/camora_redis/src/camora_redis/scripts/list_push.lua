-- Put messages at the end of a list. KEYS: the list. ARGV: the messages.
return redis.call('RPUSH', KEYS[1], unpack(ARGV))
