"""AMQP 1.0 as a server speaks it, of its own: the client under test must not talk to its own codec."""
