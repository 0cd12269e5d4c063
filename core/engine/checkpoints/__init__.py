"""Checkpoints of a run: files, the writer, resume and rollback."""
