"""The computation of jobs: all torch code of Basin. It uses recipes and files, and no database, network or HTTP."""
