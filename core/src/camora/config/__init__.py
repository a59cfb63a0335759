"""Settings from `camora.toml`."""
