"""`basin doctor`: checks everything that the service needs on this machine, and names the remedy for each problem."""
