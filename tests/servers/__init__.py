"""Private Redis and Valkey servers for tests: real ones, on this machine, ended with the tests.

`fixtures` gives servers to tests; `redis`, `sentinel` and `cluster` are what it gives; `proxy` is a network that fails.
"""
