"""Files of a run: checkpoints in HDF5, configuration in TOML, history in CSV, results in JSON.

A checkpoint mirrors the pytree, one dataset a leaf, and describes itself by the root's attributes.  Files are
written under a temporary name and renamed, so that a file that exists is whole; a digest of all datasets finds the
ones that are not.  A file that cannot be used is set aside, not overwritten; rows of the history that are computed
again are replaced, and checkpoints between the newest and the milestones are thinned out as a run goes on.
HDF5's own locks are left out: network file systems may lack them, and a file here has one writer and one name.
"""

import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import json
import os
import socket
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import h5py
import jax
import numpy as np
import tomli_w

PROGRAM = "heg checkpoint"
FORMAT = f"{PROGRAM} 1"
# what says nothing about the file that could not be read
NOT_ITS_FAULT = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM)


class StorageError(Exception):
    """A file cannot be used; the message is one sentence for the user."""


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

    _replace(Path(path), write)


def load_tree(path: Path, template, resized: str | None = None):
    """Reads a pytree written by `save_tree`.

    Args:
      path: the file.
      template: a pytree of the same structure, shapes and types.
      resized: a branch whose arrays may have another length: they are cut, or repeated, to that of the template.
    Returns:
      The tree, of NumPy arrays, and the attributes given to `save_tree`.
    Raises:
      StorageError: the file is truncated, changed, foreign, or holds something else.
      OSError: it cannot be read for a reason that is not in the file, such as its permissions.
    """
    names = _arrays(template)
    try:
        with h5py.File(path, "r", locking=False) as file:
            found = str(file.attrs.get("format", ""))
            if found.startswith(PROGRAM) and found != FORMAT:
                raise StorageError(f"{path} is of another version of this program: {found}, {FORMAT} is read here")
            if found != FORMAT:
                raise StorageError(f"{path} is not a checkpoint of this program ({FORMAT})")
            stored = {name: np.asarray(file[name]) for name in names if name in file}
            attributes = dict(file.attrs)
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:  # h5py raises all of these
        if getattr(error, "errno", None) in NOT_ITS_FAULT:
            raise OSError(f"{path} cannot be read: {os.strerror(error.errno)}") from error
        raise StorageError(f"{path} cannot be read: it is truncated, damaged or not an HDF5 file") from error
    for name, leaf in names.items():
        free = 1 if resized and name.split("/")[0] == resized else 0  # axes that may differ
        if name not in stored or stored[name].shape[free:] != leaf.shape[free:] or stored[name].dtype != leaf.dtype:
            raise StorageError(f"{path} does not hold {name} of shape {leaf.shape}: it belongs to another model")
    if attributes.get("digest") != _digest(stored):
        raise StorageError(f"{path} is damaged: its contents do not match the digest stored with them")
    for name, leaf in names.items():
        if stored[name].shape != leaf.shape:
            stored[name] = stored[name][np.arange(len(leaf)) % len(stored[name])]
    return jax.tree.unflatten(jax.tree.structure(template), stored.values()), attributes


def stored_length(path: Path, name: str) -> int:
    """Length of the first axis of an array in a file of `save_tree`; 0 if it cannot be told."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            return len(file[name])
    except (OSError, KeyError, RuntimeError, ValueError, TypeError):
        return 0


def checkpoints(run_dir: Path) -> list[Path]:
    """Checkpoints of a run, newest first."""
    found = [path for path in Path(run_dir).glob("checkpoint-*.h5") if path.stem.split("-")[1].isdigit()]
    return sorted(found, key=lambda path: int(path.stem.split("-")[1]), reverse=True)


def thin_out(run_dir: Path, newest: int, every: int) -> None:
    """Deletes the checkpoints of a run that are neither among the newest nor at a multiple of `every` steps."""
    for path in checkpoints(run_dir)[newest:]:
        if int(path.stem.split("-")[1]) % every:
            path.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Renames a file that cannot be used, lest it be overwritten; the new name."""
    names = (path.with_name(f"{path.name}.unused{number or ''}") for number in range(10**6))
    aside = next(name for name in names if not name.exists())
    return path.rename(aside)


@contextlib.contextmanager
def locked(run_dir: Path, name: str = "lock") -> Iterator[str]:
    """Holds a run directory for this process, which the system lets go of when the process ends, however it ends.

    Args:
      run_dir: the directory.
      name: of the file that says so; work that does not disturb other work has a name of its own.

    Yields:
      Who held it before and did not leave in order; empty if nobody.
    Raises:
      StorageError: another process holds it, or may hold it where the file system has no locks.
    """
    with (run_dir / name).open("a+") as file:
        file.seek(0)
        holder = file.read().strip()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise StorageError(f"{run_dir} is in use by {holder}: stop it, or choose another --run-dir") from None
        except OSError:
            if holder:
                raise StorageError(
                    f"{run_dir} may be in use by {holder}, its file system has no locks: if not, delete {file.name}"
                ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        file.flush()
        try:
            yield holder
        finally:
            file.truncate(0)


def fingerprint(tree) -> str:
    """A digest of the values of a pytree of arrays."""
    return _digest(_arrays(tree))


def append_line(path: Path, value: dict) -> None:
    """Adds a line of JSON to a file."""
    with path.open("a") as file:
        file.write(json.dumps(value) + "\n")


def save_json(path: Path, value: dict) -> None:
    """Writes a JSON file atomically."""
    _replace(Path(path), lambda temporary: temporary.write_text(json.dumps(value, indent=2) + "\n"))


def load_json(path: Path) -> dict:
    """Reads a JSON file.

    Raises:
      StorageError: it is not there or not JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise StorageError(f"{path} is not JSON: {error}") from error


def save_config(path: Path, config: dict) -> None:
    """Writes tables to a TOML file atomically; fields that are None are left out."""
    tables = {name: {k: v for k, v in table.items() if v is not None} for name, table in config.items()}
    _replace(Path(path), lambda temporary: temporary.write_text(tomli_w.dumps(tables)))


def load_config(path: Path) -> dict:
    """Tables of a TOML file.

    Raises:
      StorageError: it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StorageError(f"{path} is not TOML: {error}") from error


def read_history(path: Path) -> list[dict[str, str]]:
    """Whole rows of a history, oldest first; a partial last line is dropped.  Empty if there is no file."""
    if not path.exists():
        return []
    text = path.read_text()
    lines = text[: text.rfind("\n") + 1].splitlines()
    return list(csv.DictReader(lines))


def rewind_history(path: Path, step: int) -> list[dict[str, str]]:
    """Drops the rows after `step` steps, which are to be computed again, and a partial last line; the rows kept."""
    rows = read_history(path)
    kept = [row for row in rows if int(row["step"]) <= step]
    if kept:
        _replace(path, lambda temporary: _write_rows(temporary, list(kept[0]), kept))
    elif path.exists():
        path.unlink()
    return kept


def append_history(path: Path, row: dict[str, float]) -> None:
    """Adds a row, with the header when the file is new, and hands it to the operating system."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)
        file.flush()
        os.fsync(file.fileno())


def _write_rows(path, names, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _replace(path, write):
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise OSError(f"{path} cannot be written ({reason}): see to it, the same command continues the run") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _leaves(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [
        ("/".join(jax.tree_util.keystr((part,), simple=True).replace("/", ".") for part in path), leaf)
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
