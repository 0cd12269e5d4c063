"""The GPUs of this machine: which ones there are, whether they work, who has them. No torch here."""
