"""What the framework itself does around a job, as links of the one chain."""
