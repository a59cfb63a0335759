"""The scheduler: it dispatches what is due."""
