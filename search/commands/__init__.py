"""The commands of the command line, one module each: `add` declares the arguments, `execute` does the work."""
