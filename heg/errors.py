"""What can go wrong in a run, each said in one sentence for the user."""


class RunError(Exception):
    """The run cannot go on; the message is one sentence for the user."""


class StorageError(Exception):
    """A file cannot be used; the message is one sentence for the user."""


class InUse(StorageError):
    """Another process holds the directory."""


class ParallelError(Exception):
    """The processes cannot work together; the message is one sentence for the user."""
