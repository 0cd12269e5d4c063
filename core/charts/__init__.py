"""Data of jobs and recipes that becomes a picture."""
