"""Weights besides those that are trained: averages, snapshots, ensembles, the best so far."""
