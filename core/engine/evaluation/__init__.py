"""What a run measures: losses and metrics of every step and of every evaluation."""
