"""How a job is computed: all the torch of Basin. Knows recipes and files, no database, no network, no HTTP."""
