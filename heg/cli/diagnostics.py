"""Software, processes, devices, memory and speed of an installation, and what is known to fail."""

import os
import platform
import socket
from collections.abc import Mapping
from importlib import metadata
from typing import NamedTuple

import jax
import numpy as np

from heg.config import Config, RunConfig, SamplerConfig, SystemConfig
from heg.parallel.devices import everywhere, jit, map_walkers
from heg.parallel.processes import PROXIES
from heg.training.cost import fastest
from heg.training.state import key_of_run
from heg.training.step import build

PACKAGES = ("heg", "jax", "jaxlib", "dm-haiku", "optax", "numpy", "scipy", "h5py", "mpi4py")
PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin", "jax-rocm7-plugin")
GIBIBYTE = 2**30
COLLECTIVE_NUMBERS = 2**17  # double-precision numbers of each device, 1 MiB


class Finding(NamedTuple):
    """Something known to fail or to mislead.

    Attributes:
      what: was found.
      remedy: what to do about it.
    """

    what: str
    remedy: str


class Place(NamedTuple):
    """One process and what it computes on.

    Attributes:
      rank, host, process: which one.
      devices: as JAX calls them.
      cores: of the CPU that it may use.
      memory: of the host that is free, and of its accelerators, GiB.
    """

    rank: int
    host: str
    process: int
    devices: list[str]
    cores: int
    memory: str


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter; those that are missing say so."""
    installed = {"Python": platform.python_version()}
    for name in (*PACKAGES, *PLUGINS):
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name not in PLUGINS:
                installed[name] = "not installed"
    return installed


def place() -> Place:
    """The place of this process."""
    return Place(
        rank=jax.process_index(),
        host=socket.gethostname(),
        process=os.getpid(),
        devices=[f"{device.platform}:{device.id}" for device in jax.local_devices()],
        cores=_count_cores(),
        memory=", ".join(_memories()),
    )


def _count_cores():
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS does not bind processes to cores


def _memories():
    """Memory of the host that is free, and of each accelerator, in words."""
    memories = []
    if "SC_AVPHYS_PAGES" in os.sysconf_names:  # macOS has no such number
        pages = os.sysconf("SC_AVPHYS_PAGES")
        page_size = os.sysconf("SC_PAGE_SIZE")
        free = pages * page_size
        memories.append(f"host {free / GIBIBYTE:.1f} free")
    # a CPU device has the memory of the host
    for device in jax.local_devices():
        if device.platform != "cpu":
            statistics = device.memory_stats()
            limit = statistics["bytes_limit"]
            memories.append(f"{device.device_kind} {limit / GIBIBYTE:.1f}")
    return memories


def seconds_of_collective() -> float:
    """Seconds in which all devices gather 1 MiB from each, after compilation."""
    shares = np.zeros((jax.device_count(), COLLECTIVE_NUMBERS))
    # the rows are shared, the result is whole everywhere: XLA must gather them
    gather = jit(lambda rows: map_walkers(lambda row: row + 1, rows, 1))
    return fastest(gather, everywhere(shares))


def seconds_of_step() -> float:
    """Seconds of a training step of a small gas, after compilation.

    It has seven polarised electrons in three dimensions and 64 samples.
    """
    gas = SystemConfig(7, 3, rs=2.0, theta=1.0, polarization="1")
    solver = build(Config(gas, RunConfig("none"), sampler=SamplerConfig(batch=64)))
    state = solver.init(key_of_run(0))
    trained, _ = solver.step(state)  # the state of a run in progress, not that of its start
    return fastest(solver.step, trained)


def findings(
    software: Mapping[str, str], environment: Mapping[str, str], processes: int
) -> list[Finding]:
    """Combinations known to fail, as far as they are met here.

    Args:
      software: versions by package, from `versions`.
      environment: variables of the process.
      processes: how many work together.
    """
    checks = [
        _deadlocking_jax(software),
        _different_versions(software),
        _single_precision(environment),
        _short_products(environment),
        _proxies(environment) if processes > 1 else None,
        _compilation_cache(environment),
        _unused_accelerator(software),
    ]
    return [finding for finding in checks if finding is not None]


def _variable(environment, name):
    return environment.get(name, "").strip().lower()


def _deadlocking_jax(software):
    if any(software[name].startswith("0.10.") for name in ("jax", "jaxlib")):
        return Finding(
            "JAX 0.10, which deadlocks on machines of few cores: "
            "batched triangular solves starve its threads",
            "install jax 0.9.2 or 0.11 and newer",
        )
    return None


def _different_versions(software):
    if software["jax"] != software["jaxlib"]:
        return Finding(
            f"jax {software['jax']} with jaxlib {software['jaxlib']}",
            "install the same version of both",
        )
    return None


def _single_precision(environment):
    switched_off = _variable(environment, "JAX_ENABLE_X64") in ("0", "false", "off")
    if switched_off or _variable(environment, "JAX_DEFAULT_DTYPE_BITS") == "32":
        return Finding(
            "single precision asked for by JAX_ENABLE_X64 or JAX_DEFAULT_DTYPE_BITS",
            "unset it: energies per electron to 1e-6 are lost in single precision",
        )
    return None


def _short_products(environment):
    if _variable(environment, "NVIDIA_TF32_OVERRIDE") == "1":
        return Finding(
            "NVIDIA_TF32_OVERRIDE=1",
            "unset it: products of matrices would have three digits",
        )
    return None


def _proxies(environment):
    names = sorted(name for name in environment if name.lower() in PROXIES)
    if names:
        return Finding(
            f"web proxies set ({', '.join(names)}), "
            "through which messages between hosts may be sent",
            "add the hosts of the job to no_proxy",
        )
    return None


def _compilation_cache(environment):
    if _variable(environment, "JAX_COMPILATION_CACHE_DIR"):
        return Finding(
            "JAX_COMPILATION_CACHE_DIR: "
            "with a cache that was filled before, runs have been seen to hang",
            "unset it",
        )
    return None


def _unused_accelerator(software):
    if any(name in software for name in PLUGINS) and jax.default_backend() == "cpu":
        return Finding(
            "a GPU plugin is installed, but JAX computes on the CPU",
            "look at JAX_PLATFORMS, CUDA_VISIBLE_DEVICES and the driver (nvidia-smi)",
        )
    return None
