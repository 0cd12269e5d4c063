"""Reads uploaded files in a confined process of its own, and writes them as a prepared dataset."""
