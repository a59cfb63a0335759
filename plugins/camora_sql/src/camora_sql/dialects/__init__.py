"""What differs between databases, and nothing else."""
