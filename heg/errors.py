"""Errors whose message is one sentence for the user.

The commands print that sentence and end; in Python it is the text of the exception.
"""


class RunError(Exception):
    """The run cannot go on."""


class StorageError(Exception):
    """A file cannot be used."""


class InUse(StorageError):
    """Another process holds the directory."""


class ParallelError(Exception):
    """The processes of a launcher cannot work together."""
