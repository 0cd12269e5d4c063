"""Datasets that users upload: their rows, their pieces in the store, and the jobs that prepare them."""
