"""Losses and metrics of every step and of every evaluation."""
