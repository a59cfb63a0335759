"""Observers that come with the core."""
