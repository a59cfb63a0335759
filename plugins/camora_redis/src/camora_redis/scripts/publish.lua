-- Store a batch of messages of one queue, each once. ARGV: the batch, packed, and the bodies. Answers with the ids that stand for them.
return publish(KEYS[1], cmsgpack.unpack(ARGV[1]))
