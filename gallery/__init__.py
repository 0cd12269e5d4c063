"""Job files, one folder per claim, and the results that they must show."""
