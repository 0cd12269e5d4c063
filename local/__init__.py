"""`basin up`: the whole service on one machine; broker, api and worker are child processes."""
