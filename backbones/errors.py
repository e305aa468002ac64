"""The one exception that means "your input", as opposed to "our bug"."""


class SecateurError(ValueError):
    """Input that cannot be used.

    The message is one line: it names the input, what was wrong with it and what would be right. The command line
    prints it as it is and exits with code 2.
    """
