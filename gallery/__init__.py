"""Ready-made job files, one folder per claim, and what they must show."""
