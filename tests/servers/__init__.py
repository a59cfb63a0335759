"""Private Redis and Valkey servers for tests: real ones, on this machine, ended with the tests."""
