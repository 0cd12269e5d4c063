"""`python -m basin`: the command line without the script in bin/."""

from basin.cli import main

if __name__ == "__main__":
    main()
