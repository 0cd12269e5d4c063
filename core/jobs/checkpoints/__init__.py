"""Checkpoints as rows: records, pins, and the replay that verifies them."""
