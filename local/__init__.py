"""`basin up`: the whole service on one machine, each part a process of its own."""
