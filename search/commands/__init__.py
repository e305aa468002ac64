"""The commands of the command line: each a `Command`, listed in `search/cli.py`."""
