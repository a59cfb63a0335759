"""What comes with the core; it enters through the same hooks as any plugin."""
