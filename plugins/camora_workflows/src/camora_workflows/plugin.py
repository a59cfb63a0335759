"""The plugin: what camora-workflows offers."""
