"""The state of the service: statistics, counters, workers."""
