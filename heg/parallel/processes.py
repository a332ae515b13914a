"""How processes and devices share the work; the only module that knows of MPI.

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

GRACE = 10  # seconds that the processes have to leave together
HEARTBEAT = 30  # seconds after which a silent process counts as dead and ends the job
# number of processes, as launchers tell it to those they start
LAUNCHED = {
    "OMPI_COMM_WORLD_SIZE": "Open MPI's mpirun",
    "PMI_SIZE": "mpirun of MPICH or Intel MPI",
    "SLURM_STEP_NUM_TASKS": "Slurm's srun",
}
from heg.errors import ParallelError


@dataclasses.dataclass
class _Group:
    """What this process knows of the others.  Who it is among them is what MPI says, never what a
    variable says.

    Attributes:
      communicator: of all processes once they have met; None for one that works alone.
      alone: what `start` was asked for; None before it.
    """

    communicator: Any = None
    alone: bool | None = None


_group = _Group()


def start(alone: bool = False) -> None:
    """To be called once by a command before it computes anything.

    Each core of a CPU is a device, BLAS has one thread: XLA's threads split one operation after the
      other, which are
    small here; devices share the walkers instead.  BLAS is called from threads of XLA for many
    matrices at once, and threads of its own would only wait for each other.  JAX_NUM_CPU_DEVICES
    sets another number of devices.

    Under a launcher the processes of a host share its cores and its GPUs evenly, unless the
    launcher bound them; a process that fails ends all of them.

    Args:
      alone: this process does not join the others although a launcher started it.  It uses all that
        the launcher leaves to it.
    Raises:
      ParallelError: the launcher's processes do not find each other, or there are not enough GPUs.
    """
    threadpool_limits(limits=1, user_api="blas")
    if alone or _launched() == 1:
        _group.alone = alone
        return _use_cores(_cores())
    comm, shared = _communicators(_launched())
    _group.communicator = comm
    _use_cores(share_of_cores(shared.allgather(_cores()), shared.rank))
    gpus, refusal = None, None
    try:
        gpus = share_of_gpus(shared.allgather(_gpus()), shared.rank)
    except ParallelError as error:
        refusal = error
    for refused in filter(None, comm.allgather(refusal)):
        raise refused  # all together
    sys.excepthook = _end_all
    address = comm.bcast(_address(alone=shared.size == comm.size) if comm.rank == 0 else None)
    _bypass_proxies(address.split(":")[0])
    jax.distributed.initialize(
        address, comm.size, comm.rank, local_device_ids=gpus, heartbeat_timeout_seconds=HEARTBEAT
    )
    _group.alone = alone


def join(alone: bool = False) -> None:
    """`start`, for a program that may have begun before and used JAX: its devices serve then.

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
    """Leaves, with the exit code, and sees to it that the other processes do not wait for this one
    for ever."""
    if code and _group.communicator is not None:
        # a process that goes without a farewell makes the launcher end the others
        farewell = threading.Timer(GRACE, os._exit, (code,))
        farewell.daemon = True
        farewell.start()
    sys.exit(code)


def is_first() -> bool:
    """Is this the process that prints and writes files?  One that has met no other is."""
    return _group.communicator is None or _group.communicator.rank == 0


def on_first(function: Callable, *arguments):
    """What the function returns on the first process, for all of them; what it raises there, all
    raise."""
    if _group.communicator is None:
        return function(*arguments)
    outcome = None
    if is_first():
        try:
            outcome = function(*arguments), None
        except Exception as error:
            outcome = None, error
    result, error = _group.communicator.bcast(outcome)
    if error is not None:
        raise error
    return result


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
    of_all = gathered(dict(asked))
    for name in dict.fromkeys(name for of_one in of_all for name in of_one):
        first, *others = [of_one.get(name) for of_one in of_all]
        different = [value for value in others if value != first]
        if different:
            raise ValueError(
                f"{name} is {first} on the first process and {different[0]} on another: give all processes the same, "
                "or let each run by itself with --alone (in Python alone=True)"
            )


def launcher() -> str:
    """What started the processes, as far as it can be told, and the MPI library that they use."""
    name = next((name for name in LAUNCHED if name in os.environ), None)
    if _group.communicator is None:
        return "none: one process"
    from mpi4py import MPI

    return f"{LAUNCHED[name]}, {MPI.Get_library_version().splitlines()[0].strip()}"


def share_of_cores(cores: list[list[int]], rank: int) -> list[int]:
    """Cores for one process of a host: its part of those that it shares with others, all where
    there are too few.

    Args:
      cores: that each process of the host may use.
      rank: of the process among them.
    """
    own = cores[rank]
    count, place = cores.count(own), cores[:rank].count(own)
    return (
        own[place * len(own) // count : (place + 1) * len(own) // count]
        if len(own) >= count
        else own
    )


def share_of_gpus(gpus: list[tuple[str | None, tuple[str, ...]]], rank: int) -> list[int] | None:
    """GPUs for one process of a host, counted among those visible to it; none without GPUs.

    Args:
      gpus: CUDA_VISIBLE_DEVICES, None if not set, and the devices that may be opened, of each
        process of the host.
      rank: of the process among them.
    Raises:
      ParallelError: the processes outnumber the GPUs that they share.
    """
    own = visible, present = gpus[rank]
    count = (
        len(present)
        if visible is None
        else len([name for name in visible.split(",") if name not in ("", "-1")])
    )
    sharers, place = gpus.count(own), gpus[:rank].count(own)
    if not present or not count:
        return None
    if count < sharers:
        raise ParallelError(
            f"{sharers} processes share {count} GPUs on {socket.gethostname()}: start at most one process for each GPU"
        )
    return list(range(place * count // sharers, (place + 1) * count // sharers))


def _launched():
    """Processes that the launcher says it started; 1 without a launcher."""
    return next(
        (int(os.environ[name]) for name in LAUNCHED if os.environ.get(name, "").isdigit()), 1
    )


def _cores():
    # macOS cannot tell which cores the process may use
    return (
        sorted(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else list(range(os.cpu_count()))
    )


def _use_cores(cores):
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", len(cores))


def _communicators(launched):
    """All processes, and those of this host."""
    try:
        with warnings.catch_warnings(
            action="ignore", category=RuntimeWarning
        ):  # of what is told below
            from mpi4py import MPI
    except ImportError as error:
        raise ParallelError(
            f"{launched} processes were started, but mpi4py does not work here ({error}): pip install mpi4py mpich, "
            "start one process, or let each run by itself with --alone"
        ) from error
    comm = MPI.COMM_WORLD
    if comm.size != launched:
        library = MPI.Get_library_version().splitlines()[0].strip()
        raise ParallelError(
            f"{launched} processes were started, but each finds itself in a world of {comm.size}: start them with the "
            f"mpirun of the MPI library that mpi4py uses here ({library}), or let each run by itself with --alone"
        )
    return comm, comm.Split_type(MPI.COMM_TYPE_SHARED)


def _gpus():
    """CUDA_VISIBLE_DEVICES and the GPUs that may be opened.  JAX must not look before the processes
    have met."""
    plugins = any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13))
    platforms = (jax.config.jax_platforms or "").split(",")
    wanted = plugins and platforms[0] != "cpu"
    return os.environ.get("CUDA_VISIBLE_DEVICES"), tuple(
        filter(_opens, glob("/dev/nvidia[0-9]*"))
    ) if wanted else ()


def _opens(path):
    try:
        os.close(os.open(path, os.O_RDWR))
    except OSError:  # kept from this process by its job's limits
        return False
    return True


def _address(alone):
    """Where the first process can be met: a free port of this host."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return f"{'127.0.0.1' if alone else socket.gethostname()}:{probe.getsockname()[1]}"


def _bypass_proxies(host):
    """Lest the messages between the processes be sent to a web proxy."""
    if not any(
        name.lower() in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")
        for name in os.environ
    ):
        return
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), host)))


def _end_all(kind, error, trace):
    """What an exception that nobody expected does: ends every process, with its message."""
    words = "".join(traceback.format_exception(kind, error, trace))
    sys.stderr.write(f"Process {_group.communicator.rank} failed:\n{words}")
    sys.stderr.flush()
    time.sleep(
        1.0
    )  # until the launcher has read it: what it has not read when it hears of the end, it drops
    _group.communicator.Abort(1)
