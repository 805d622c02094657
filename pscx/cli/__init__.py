"""The ``pscx`` program."""
