"""Files that are whole or not there, and locks of directories.

A file is written under a temporary name and renamed, so that a reader never sees half of it.  A
file that cannot be used is set aside under another name, not overwritten.
"""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from heg.errors import InUse, StorageError

if TYPE_CHECKING:
    # only figures need matplotlib
    from matplotlib.figure import Figure

MAX_SET_ASIDE = 10**6  # files of one name that are kept
DOTS_PER_INCH = 150  # of figures


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name, then rename it.

    Args:
      path: the file.
      write: takes the temporary path and writes the contents there.

    Raises:
      OSError: the file cannot be written; the one that was there before is untouched.
    """
    # the name is that of this process alone: two writers never share a temporary file
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.part")
    try:
        write(temporary)
        # on the disk before it gets its name: after a power failure the name never leads to
        # an empty file
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise OSError(
            f"{path} cannot be written ({reason}): see to it, the same command continues the run"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def save_figure(figure: "Figure", path: Path) -> Path:
    """Write a figure as a PNG file; return its path.

    Raises:
      OSError: as of `replace`.
    """
    replace(path, lambda temporary: figure.savefig(temporary, dpi=DOTS_PER_INCH, format="png"))
    return path


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be used, so that it is not overwritten; return the new path."""
    # x.unused, x.unused1, x.unused2 ...: none is overwritten
    for number in range(MAX_SET_ASIDE):
        aside = path.with_name(f"{path.name}.unused{number or ''}")
        if not aside.exists():
            return path.rename(aside)
    raise StorageError(f"{path} cannot be set aside: too many files of its name were before")


@contextlib.contextmanager
def locked(directory: Path, name: str = "lock") -> Iterator[str]:
    """Hold a directory for this process.

    The operating system lets go of it when the process ends, however it ends.

    Args:
      directory: the directory.
      name: file in it that names the holder; work that does not disturb other work has its own.

    Yields:
      The previous holder if it did not leave in order; an empty string otherwise.

    Raises:
      InUse: another process holds the directory.
      StorageError: another process may hold it, and the file system has no locks to tell.
      OSError: the directory cannot be written.
    """
    with _open_lock_file(directory / name) as file:
        # opened to append, so that the name of a holder survives until the lock is ours
        file.seek(0)
        holder = file.read().strip()
        _lock(file, directory, holder)
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}")
        file.flush()
        try:
            yield holder
        finally:
            # an empty file says that its holder left in order
            file.truncate(0)


def _open_lock_file(path: Path) -> TextIO:
    try:
        return path.open("a+", encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise OSError(
            f"{path.parent} cannot be written ({error.strerror}): give a directory that can be, "
            "with --run-dir or, for a measurement, --output"
        ) from error


def _lock(file: TextIO, directory: Path, holder: str) -> None:
    """Lock an open file, or say in one sentence who holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise InUse(
            f"{directory} is in use by {holder}: stop it, or give another directory, "
            "with --run-dir or, for a measurement, --output"
        ) from None
    except OSError:
        # a file system without locks: only the name in the file can warn
        if holder:
            raise StorageError(
                f"{directory} may be in use by {holder}, its file system has no locks: "
                f"if not, delete {file.name}"
            ) from None
