"""Pytrees of arrays in HDF5 files.

A file mirrors the pytree, one dataset for each leaf, and describes itself by the attributes of its
root.  A digest of all datasets finds the files that were damaged after they were written.  HDF5's
own locks are not used: network file systems may lack them, and a file here has one writer.
"""

import contextlib
import errno
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import jax
import numpy as np

from heg.errors import StorageError
from heg.runs.files import replace

PROGRAM = "heg checkpoint"
FORMAT = f"{PROGRAM} 1"
H5PY_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError)  # of files that are no HDF5
# reasons why a file cannot be read that are not in the file
ENVIRONMENT_ERRNOS = (
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENOMEM,
)

Arrays = dict[str, np.ndarray]  # leaves by their names, such as "params/flow/w"


def save_tree(path: Path, tree: Any, each: dict[str, dict] | None = None, **attributes) -> None:
    """Write a pytree of arrays and attributes to an HDF5 file, atomically.

    Args:
      path: the file.
      tree: the pytree.
      each: attributes of single arrays by name, such as {"F/value": {"unit": "hartree"}}.
      attributes: attributes of the file.

    Raises:
      OSError: the file cannot be written.
    """
    arrays = _named_arrays(tree)
    array_attributes = each or {}

    def write(temporary: Path) -> None:
        # HDF5 writes to memory: on a full disk the library itself has crashed
        content = io.BytesIO()
        with h5py.File(content, "w") as file:
            for name, array in arrays.items():
                file[name] = array
                own_attributes = array_attributes.get(name, {})
                file[name].attrs.update(own_attributes)
            file.attrs.update(
                attributes,
                format=FORMAT,
                digest=_digest(arrays),
            )
        temporary.write_bytes(content.getvalue())

    replace(Path(path), write)


def load_tree(path: Path, template: Any, resized: str | None = None) -> tuple[Any, dict]:
    """Read a pytree written by `save_tree`.

    Args:
      path: the file.
      template: a pytree of the same structure, shapes and types.
      resized: a branch whose arrays may have another length: they are cut, or repeated, to that
        of the template.

    Returns:
      The pytree, of NumPy arrays, and the attributes given to `save_tree`.

    Raises:
      StorageError: the file is truncated, changed, foreign, or holds another tree.
      OSError: it cannot be read for a reason that is not in the file, such as its permissions.
    """
    wanted = _named_arrays(template)
    stored, attributes = load_arrays(path)
    leaves = []
    # in the order of the template, not that of the file
    for name, leaf in wanted.items():
        branch = name.split("/")[0]
        may_differ = resized is not None and branch == resized
        if name not in stored or not _matches(stored[name], leaf, may_differ):
            raise StorageError(
                f"{path} does not hold {name} of shape {leaf.shape}: it belongs to another model"
            )
        leaves.append(_resize(stored[name], leaf))
    structure = jax.tree.structure(template)
    return jax.tree.unflatten(structure, leaves), attributes


def load_arrays(path: Path) -> tuple[Arrays, dict]:
    """Read all arrays of a file of `save_tree` by name, and its attributes.

    Raises:
      StorageError: the file is truncated, changed or foreign.
      OSError: it cannot be read for a reason that is not in the file, such as its permissions.
    """
    arrays: Arrays = {}

    def collect(name: str, node: h5py.Dataset | h5py.Group) -> None:
        if isinstance(node, h5py.Dataset):
            arrays[name] = np.asarray(node)

    with _one_sentence(path), h5py.File(path, "r", locking=False) as file:
        _check_format(path, str(file.attrs.get("format", "")))
        file.visititems(collect)
        attributes = dict(file.attrs)
    # a flipped bit of the disk is not seen by HDF5 itself
    if attributes.get("digest") != _digest(arrays):
        raise StorageError(
            f"{path} is damaged: its contents do not match the digest stored with them"
        )
    return arrays, attributes


def stored_length(path: Path, name: str) -> int:
    """Length of the first axis of an array in a file of `save_tree`; 0 if it cannot be read."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            return len(file[name])
    except H5PY_ERRORS:
        return 0


def fingerprint(tree: Any) -> str:
    """Digest of the values, names, shapes and types of a pytree of arrays."""
    return _digest(_named_arrays(tree))


def _matches(stored: np.ndarray, leaf: np.ndarray, may_differ: bool) -> bool:
    """Whether an array can stand for a leaf, whose first axis may differ in length."""
    first_axis = 1 if may_differ else 0
    same_shape = stored.shape[first_axis:] == leaf.shape[first_axis:]
    return same_shape and stored.dtype == leaf.dtype


def _resize(stored: np.ndarray, leaf: np.ndarray) -> np.ndarray:
    """The stored array, its rows cut or repeated to the length of the leaf."""
    if stored.shape == leaf.shape:
        return stored
    rows = np.arange(len(leaf)) % len(stored)
    return stored[rows]


def _check_format(path: Path, kind: str) -> None:
    """Refuse files of other programs and of other versions of this one."""
    if kind == FORMAT:
        return
    if kind.startswith(PROGRAM):
        raise StorageError(
            f"{path} is of another version of this program: {kind}, {FORMAT} is read here"
        )
    raise StorageError(f"{path} is not a file of this program ({FORMAT})")


@contextlib.contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    """Turn the errors of h5py into a StorageError, or an OSError that names its reason."""
    try:
        yield
    except H5PY_ERRORS as error:
        number = getattr(error, "errno", None)
        if number in ENVIRONMENT_ERRNOS:
            raise OSError(f"{path} cannot be read: {os.strerror(number)}") from error
        raise StorageError(
            f"{path} cannot be read: it is truncated, damaged or not an HDF5 file"
        ) from error


def _named_arrays(tree: Any) -> Arrays:
    """Leaves of a pytree by their path, its parts joined by slashes."""
    return {
        "/".join(map(_part_name, path)): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _part_name(part: Any) -> str:
    # a slash inside of a name, as Haiku's have, would open a group of HDF5
    return jax.tree_util.keystr((part,), simple=True).replace("/", ".")


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    # sorted: a file gives its datasets back in another order than they were written
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        # the same bytes may mean another array
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
