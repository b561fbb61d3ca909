"""`python -m shell` is the flexcore command."""

from shell.cli import main

if __name__ == "__main__":
    main()
