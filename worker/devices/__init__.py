"""The GPUs of this machine: which exist, whether they work, which process has them. No torch here."""
