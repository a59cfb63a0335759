"""Connections of event loops, used in greenlets: they look as if they blocked."""
