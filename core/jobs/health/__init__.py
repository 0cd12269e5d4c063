"""What is known of the service: statistics, counters, workers."""
