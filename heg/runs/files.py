"""Files that are whole or not there: pytrees of arrays in HDF5, and who may write in a directory.

A file mirrors the pytree, one dataset a leaf, and describes itself by the root's attributes.  Files
are written under a temporary name and renamed; a digest of all datasets finds the ones that were
damaged since.  A file that cannot be used is set aside, not overwritten; checkpoints between the
newest and the milestones are thinned out as a run goes on. HDF5's own locks are left out: network
file systems may lack them, and a file here has one writer and one name.
"""

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import jax
import numpy as np

PROGRAM = "heg checkpoint"
FORMAT = f"{PROGRAM} 1"
# what says nothing about the file that could not be read
NOT_ITS_FAULT = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM)
from heg.errors import InUse, StorageError


def save_tree(path: Path, tree, each: dict[str, dict] | None = None, **attributes) -> None:
    """Writes a pytree of arrays and attributes to an HDF5 file, atomically.

    Args:
      path: of the file.
      tree: of arrays.
      each: attributes of single arrays by name, such as {"F/value": {"unit": "hartree"}}.
      attributes: of the file.
    Raises:
      OSError: the directory cannot be written.
    """
    arrays = _arrays(tree)

    def write(temporary):
        # HDF5 writes to memory: on a full disk the library itself has crashed
        content = io.BytesIO()
        with h5py.File(content, "w") as file:
            for name, array in arrays.items():
                file[name] = array
                file[name].attrs.update((each or {}).get(name, {}))
            file.attrs.update(attributes, format=FORMAT, digest=_digest(arrays))
        temporary.write_bytes(content.getvalue())

    replace(Path(path), write)


def load_tree(path: Path, template, resized: str | None = None):
    """Reads a pytree written by `save_tree`.

    Args:
      path: the file.
      template: a pytree of the same structure, shapes and types.
      resized: a branch whose arrays may have another length: they are cut, or repeated, to that of
        the template.
    Returns:
      The tree, of NumPy arrays, and the attributes given to `save_tree`.
    Raises:
      StorageError: the file is truncated, changed, foreign, or holds something else.
      OSError: it cannot be read for a reason that is not in the file, such as its permissions.
    """
    names, (found, attributes) = _arrays(template), load_arrays(path)
    stored = {name: found[name] for name in names if name in found}
    for name, leaf in names.items():
        free = 1 if resized and name.split("/")[0] == resized else 0  # axes that may differ
        if (
            name not in stored
            or stored[name].shape[free:] != leaf.shape[free:]
            or stored[name].dtype != leaf.dtype
        ):
            raise StorageError(
                f"{path} does not hold {name} of shape {leaf.shape}: it belongs to another model"
            )
    for name, leaf in names.items():
        if stored[name].shape != leaf.shape:
            stored[name] = stored[name][np.arange(len(leaf)) % len(stored[name])]
    return jax.tree.unflatten(jax.tree.structure(template), stored.values()), attributes


def load_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    """All arrays of a file of `save_tree` by name, and its attributes.

    Raises:
      StorageError: the file is truncated, changed or foreign.
      OSError: it cannot be read for a reason that is not in the file, such as its permissions.
    """
    found = {}
    take = lambda name, node: (
        found.update({name: np.asarray(node)}) if isinstance(node, h5py.Dataset) else None
    )
    try:
        with h5py.File(path, "r", locking=False) as file:
            kind = str(file.attrs.get("format", ""))
            if kind.startswith(PROGRAM) and kind != FORMAT:
                raise StorageError(
                    f"{path} is of another version of this program: {kind}, {FORMAT} is read here"
                )
            if kind != FORMAT:
                raise StorageError(f"{path} is not a checkpoint of this program ({FORMAT})")
            file.visititems(take)
            attributes = dict(file.attrs)
    except (
        OSError,
        KeyError,
        RuntimeError,
        ValueError,
        TypeError,
    ) as error:  # h5py raises all of these
        if getattr(error, "errno", None) in NOT_ITS_FAULT:
            raise OSError(f"{path} cannot be read: {os.strerror(error.errno)}") from error
        raise StorageError(
            f"{path} cannot be read: it is truncated, damaged or not an HDF5 file"
        ) from error
    if attributes.get("digest") != _digest(found):
        raise StorageError(
            f"{path} is damaged: its contents do not match the digest stored with them"
        )
    return found, attributes


def stored_length(path: Path, name: str) -> int:
    """Length of the first axis of an array in a file of `save_tree`; 0 if it cannot be told."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            return len(file[name])
    except (OSError, KeyError, RuntimeError, ValueError, TypeError):
        return 0


def checkpoints(run_dir: Path) -> list[Path]:
    """Checkpoints of a run, newest first."""
    steps = {path: _step(path) for path in Path(run_dir).glob("checkpoint-*.h5")}
    found = [path for path, step in steps.items() if step is not None]
    return sorted(found, key=steps.get, reverse=True)


def thin_out(run_dir: Path, newest: int, every: int) -> None:
    """Deletes the checkpoints of a run that are neither among the newest nor at a multiple of
    `every` steps."""
    for path in checkpoints(run_dir)[newest:]:
        if _step(path) % every:
            path.unlink(missing_ok=True)


def _step(path):
    """Of a checkpoint; None if the name is another, such as that of somebody's copy."""
    name = re.fullmatch(r"checkpoint-([0-9]+)\.h5", path.name)
    return int(name[1]) if name else None


def set_aside(path: Path) -> Path:
    """Renames a file that cannot be used, lest it be overwritten; the new name."""
    names = (path.with_name(f"{path.name}.unused{number or ''}") for number in range(10**6))
    aside = next(name for name in names if not name.exists())
    return path.rename(aside)


@contextlib.contextmanager
def locked(run_dir: Path, name: str = "lock") -> Iterator[str]:
    """Holds a run directory for this process, which the system lets go of when the process ends,
    however it ends.

    Args:
      run_dir: the directory.
      name: of the file that says so; work that does not disturb other work has a name of its own.

    Yields:
      Who held it before and did not leave in order; empty if nobody.
    Raises:
      StorageError: another process holds it, or may hold it where the file system has no locks.
    """
    with _lock_file(run_dir / name) as file:
        file.seek(0)
        holder = file.read().strip()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise InUse(
                f"{run_dir} is in use by {holder}: stop it, or choose another --run-dir"
            ) from None
        except OSError:
            if holder:
                raise StorageError(
                    f"{run_dir} may be in use by {holder}, its file system has no locks: if not, delete {file.name}"
                ) from None
        file.truncate(0)
        file.write(
            f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
        )
        file.flush()
        try:
            yield holder
        finally:
            file.truncate(0)


def _lock_file(path):
    try:
        return path.open("a+", encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise OSError(
            f"{path.parent} cannot be written ({error.strerror}): give a directory that can be, with --run-dir or, "
            "for a measurement, --output"
        ) from error


def fingerprint(tree) -> str:
    """A digest of the values of a pytree of arrays."""
    return _digest(_arrays(tree))


def replace(path: Path, write: Callable) -> None:
    """Writes a file under another name and renames it; `write` takes the other path.  OSError if it
    cannot be."""
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.part")
    try:
        write(temporary)
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


def _leaves(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [
        (
            "/".join(jax.tree_util.keystr((part,), simple=True).replace("/", ".") for part in path),
            leaf,
        )
        for path, leaf in leaves
    ]


def _arrays(tree):
    return {name: np.asarray(leaf) for name, leaf in _leaves(tree)}


def _digest(arrays):
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
