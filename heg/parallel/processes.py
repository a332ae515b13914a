"""Processes that work together, and their shares of a host; the only module that knows MPI.

A launcher (mpirun, srun) starts processes, MPI introduces them to each other, and XLA's collectives
(NCCL on GPUs, gloo on CPUs) move the data.  All processes run the same program on the same values;
walkers alone are shared among the devices of all of them.  Files, and anything else that is done
once, belong to the first process.
"""

import dataclasses
import importlib.util
import os
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from glob import glob
from typing import Any, NoReturn

import jax
import scipy.linalg  # noqa: F401  loads the BLAS that XLA calls on a CPU
from threadpoolctl import threadpool_limits

from heg.errors import ParallelError

GRACE = 10  # seconds that the processes have to leave together
HEARTBEAT = 30  # seconds after which a silent process counts as dead and ends the job
# variables in which launchers give the number of processes to those they start
LAUNCHED = {
    "OMPI_COMM_WORLD_SIZE": "Open MPI's mpirun",
    "PMI_SIZE": "mpirun of MPICH or Intel MPI",
    "SLURM_STEP_NUM_TASKS": "Slurm's srun",
}
PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")


@dataclasses.dataclass
class _Group:
    """The processes that work together.

    The rank of this one is what MPI says, never what a variable of a launcher says.

    Attributes:
      communicator: of all processes once they have met; None for one that works alone.
      alone: what `start` was asked for; None before it.
    """

    communicator: Any = None
    alone: bool | None = None

    @property
    def rank(self) -> int:
        """Number of this process among them."""
        return 0 if self.communicator is None else self.communicator.rank


_group = _Group()


def start(alone: bool = False) -> None:
    """Meets the other processes and takes this one's share of the host.

    A command calls it once, before it computes anything.

    Each core of a CPU is a device, and BLAS has one thread.  XLA's threads would split one
    operation after the other, which are small here; devices share the walkers instead.  BLAS is
    called from threads of XLA for many matrices at once, and threads of its own would only wait for
    each other.  JAX_NUM_CPU_DEVICES sets another number of devices.

    Under a launcher the processes of a host share its cores and its GPUs evenly, unless the
    launcher bound them; a process that fails ends all of them.

    Args:
      alone: this process does not join the others although a launcher started it.  It uses all that
        the launcher leaves to it.
    Raises:
      ParallelError: the launcher's processes do not find each other, or there are not enough GPUs.
    """
    threadpool_limits(limits=1, user_api="blas")
    launched = _launched()
    if alone or launched == 1:
        _group.alone = alone
        _use_cores(own_cores())
        return
    comm, shared = _communicators(launched)
    _meet(comm, shared)
    _group.alone = alone


def _meet(comm, shared) -> None:
    """Joins the processes of a communicator; `shared` has those of this host."""
    _group.communicator = comm
    # before JAX is used: it makes its devices then, once and for all
    _use_cores(share_of_cores(shared.allgather(own_cores()), shared.rank))
    gpus = _own_gpus(comm, shared)
    # from here on a process that fails alone would leave the others waiting
    sys.excepthook = _end_all
    address = _address(alone=shared.size == comm.size) if comm.rank == 0 else None
    address = comm.bcast(address)
    _bypass_proxies(address.split(":")[0])
    jax.distributed.initialize(
        address,
        comm.size,
        comm.rank,
        local_device_ids=gpus,
        heartbeat_timeout_seconds=HEARTBEAT,
    )


def _own_gpus(comm, shared):
    """GPUs of this process; where one host has too few of them, all processes raise together."""
    gpus = None
    refusal = None
    # a process must not raise before the gathering below, for which the others wait
    try:
        gpus = share_of_gpus(shared.allgather(_gpus()), shared.rank)
    except ParallelError as error:
        refusal = error
    for refused in filter(None, comm.allgather(refusal)):
        raise refused
    return gpus


def join(alone: bool = False) -> None:
    """Calls `start` unless it was called before; for programs that may have used JAX already.

    A single process that has used JAX keeps the devices that it has.

    Args:
      alone: as in `start`, the same in every call.
    Raises:
      ParallelError: as in `start`; or there are other processes, and JAX was used before they met,
        or an earlier call had another `alone`.
    """
    if _group.alone is not None:
        if _launched() > 1 and alone != _group.alone:
            raise ParallelError(
                f"alone is {alone}, but an earlier call had {_group.alone}: give all calls the same"
            )
        return
    try:
        start(alone)
    except RuntimeError as error:
        if _launched() > 1 and not alone:
            raise ParallelError(
                "JAX was used before the processes met: call heg.parallel.processes.join() first"
            ) from error
        _group.alone = alone


def end(code: int) -> NoReturn:
    """Leaves with the exit code, and keeps the other processes from waiting for this one."""
    if code and _group.communicator is not None:
        # a process that goes without a farewell makes the launcher end the others
        farewell = threading.Timer(GRACE, os._exit, (code,))
        farewell.daemon = True
        farewell.start()
    sys.exit(code)


def is_first() -> bool:
    """Is this the process that prints and writes files?  One that has met no other is."""
    return _group.rank == 0


def on_first(function: Callable, *arguments):
    """The result of a function that is called on the first process, for all of them.

    Called by all processes; what the function raises on the first one, all raise.
    """
    if _group.communicator is None:
        return function(*arguments)
    outcome = _attempt(function, arguments) if is_first() else None
    result, error = _group.communicator.bcast(outcome)
    if error is not None:
        raise error
    return result


def _attempt(function, arguments):
    """The result of a call and None, or None and the exception that it raised."""
    try:
        return function(*arguments), None
    except Exception as error:
        return None, error


def any_process(flag: bool) -> bool:
    """Is the flag true anywhere?  The same answer for all."""
    return any(gathered(bool(flag)))


def gathered(value) -> list:
    """The values of all processes, for all of them."""
    return [value] if _group.communicator is None else _group.communicator.allgather(value)


def agree(asked: Mapping[str, object]) -> None:
    """Refuses what the processes are not all asked for alike.  Called by all processes.

    Args:
      asked: what they are to do, by name; plain values.
    Raises:
      ValueError: a value differs between the processes; on all of them.
    """
    all_asked = gathered(dict(asked))
    # not a set: all processes must find the same difference first
    names = dict.fromkeys(name for one in all_asked for name in one)
    for name in names:
        first, *others = [one.get(name) for one in all_asked]
        different = [value for value in others if value != first]
        if different:
            raise ValueError(
                f"{name} is {first} on the first process and {different[0]} on another: give all "
                "processes the same, or let each run by itself with --alone "
                "(in Python alone=True)"
            )


def launcher() -> str:
    """The launcher of the processes, as far as it is known, and the MPI library that they use."""
    if _group.communicator is None:
        return "none: one process"
    name = next(name for name in LAUNCHED if name in os.environ)
    return f"{LAUNCHED[name]}, {_mpi_library()}"


def _mpi_library():
    from mpi4py import MPI

    return MPI.Get_library_version().splitlines()[0].strip()


def share_of_cores(cores: list[list[int]], rank: int) -> list[int]:
    """Cores for one process of a host: its part of those that it shares with others.

    Where there are fewer cores than processes that share them, each uses all.

    Args:
      cores: that each process of the host may use.
      rank: of the process among them.
    """
    # those that the launcher bound to other cores share nothing with this one
    own = cores[rank]
    sharers = cores.count(own)
    if len(own) < sharers:
        return own
    index = cores[:rank].count(own)
    first = index * len(own) // sharers
    end = (index + 1) * len(own) // sharers
    return own[first:end]


def share_of_gpus(gpus: list[tuple[str | None, tuple[str, ...]]], rank: int) -> list[int] | None:
    """GPUs for one process of a host, counted among those visible to it; none without GPUs.

    Args:
      gpus: CUDA_VISIBLE_DEVICES, None if not set, and the devices that may be opened, of each
        process of the host.
      rank: of the process among them.
    Raises:
      ParallelError: the processes outnumber the GPUs that they share.
    """
    own = gpus[rank]
    visible, present = own
    count = len(present) if visible is None else _count_visible(visible)
    if not present or not count:
        return None
    sharers = gpus.count(own)
    if count < sharers:
        raise ParallelError(
            f"{sharers} processes share {count} GPUs on {socket.gethostname()}: "
            "start at most one process for each GPU"
        )
    # as even shares as there are, one after the other
    index = gpus[:rank].count(own)
    first = index * count // sharers
    end = (index + 1) * count // sharers
    return list(range(first, end))


def _count_visible(visible):
    """Number of devices in CUDA_VISIBLE_DEVICES."""
    return len([name for name in visible.split(",") if name not in ("", "-1")])


def _launched():
    """Processes that the launcher says it started; 1 without a launcher."""
    for name in LAUNCHED:
        count = os.environ.get(name, "")
        if count.isdigit():
            return int(count)
    return 1


def own_cores() -> list[int]:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))  # macOS does not bind processes to cores


def _use_cores(cores):
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", len(cores))


def _communicators(launched):
    """Communicators of all processes, and of those of this host."""
    try:
        # mpi4py may warn of the library too; the sentences below say what to do about it
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
            from mpi4py import MPI
    except ImportError as error:
        raise ParallelError(
            f"{launched} processes were started, but mpi4py does not work here ({error}): "
            "pip install mpi4py mpich, start one process, or let each run by itself with --alone"
        ) from error
    comm = MPI.COMM_WORLD
    if comm.size != launched:
        raise ParallelError(
            f"{launched} processes were started, but each finds itself in a world of {comm.size}: "
            "start them with the mpirun of the MPI library that mpi4py uses here "
            f"({_mpi_library()}), or let each run by itself with --alone"
        )
    return comm, comm.Split_type(MPI.COMM_TYPE_SHARED)


def _gpus():
    """CUDA_VISIBLE_DEVICES, and the GPUs that this process may open.

    JAX itself must not look before the processes have met.
    """
    plugins = any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13))
    platforms = (jax.config.jax_platforms or "").split(",")
    present = ()
    if plugins and platforms[0] != "cpu":
        present = tuple(filter(_opens, glob("/dev/nvidia[0-9]*")))
    return os.environ.get("CUDA_VISIBLE_DEVICES"), present


def _opens(path):
    try:
        os.close(os.open(path, os.O_RDWR))
    except OSError:  # kept from this process by its job's limits
        return False
    return True


def _address(alone):
    """Where the first process can be met: a free port of this host.

    Args:
      alone: are all processes on this host?
    """
    host = "127.0.0.1" if alone else socket.gethostname()
    with socket.socket() as probe:
        probe.bind(("", 0))
        return f"{host}:{probe.getsockname()[1]}"


def _bypass_proxies(host):
    """Keeps the messages between the processes from being sent to a web proxy."""
    if not any(name.lower() in PROXIES for name in os.environ):
        return
    for name in ("no_proxy", "NO_PROXY"):
        hosts = [os.environ.get(name), host]
        os.environ[name] = ",".join(filter(None, hosts))


def _end_all(kind, error, trace):
    """Ends every process after an exception that nobody expected, with its message."""
    message = "".join(traceback.format_exception(kind, error, trace))
    sys.stderr.write(f"Process {_group.rank} failed:\n{message}")
    sys.stderr.flush()
    # the launcher drops what it has not read when it hears of the end
    time.sleep(1.0)
    _group.communicator.Abort(1)
