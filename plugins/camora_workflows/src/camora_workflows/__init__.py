"""Workflows: callbacks, chains, groups, chords, graphs, and tasks that are done in durable steps."""
