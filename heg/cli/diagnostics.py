"""What a run would find here: software, processes, devices, memory, speed, and combinations known
to fail."""

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
from heg.training.cost import fastest
from heg.training.state import key_of_run
from heg.training.step import build

PACKAGES = ("heg", "jax", "jaxlib", "dm-haiku", "optax", "numpy", "scipy", "h5py", "mpi4py")
PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin", "jax-rocm7-plugin")
NUMBERS = 2**17  # double-precision numbers of each device in the collective that is timed, 1 MiB


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
    """Python and the packages that matter; those that are missing say so."""
    found = {"Python": platform.python_version()}
    for name in dict.fromkeys((*PACKAGES, *PLUGINS)):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name not in PLUGINS:
                found[name] = "not installed"
    return found


def place() -> Place:
    """Of this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = []
    if "SC_AVPHYS_PAGES" in os.sysconf_names:  # macOS has no such number
        memory.append(
            f"host {os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} free"
        )
    for device in jax.local_devices():
        if device.platform != "cpu":
            memory.append(
                f"{device.device_kind} {device.memory_stats()['bytes_limit'] / 2**30:.1f}"
            )
    devices = [f"{device.platform}:{device.id}" for device in jax.local_devices()]
    return Place(
        jax.process_index(), socket.gethostname(), os.getpid(), devices, cores, ", ".join(memory)
    )


def seconds_of_collective() -> float:
    """One gathering of 1 MiB from each device by all, after compilation."""
    share = np.zeros((jax.device_count(), NUMBERS))
    gather = jit(lambda share: map_walkers(lambda row: row + 1, share, 1))
    return fastest(gather, everywhere(share))


def seconds_of_step() -> float:
    """A training step of seven polarised electrons in three dimensions, 64 samples, after
    compilation."""
    gas = SystemConfig(7, 3, rs=2.0, theta=1.0, polarization="1")
    solver = build(Config(gas, RunConfig("none"), sampler=SamplerConfig(batch=64)))
    state = solver.init(key_of_run(0))
    return fastest(solver.step, solver.step(state)[0])


def findings(
    found: Mapping[str, str], environment: Mapping[str, str], processes: int
) -> list[Finding]:
    """Combinations known to fail.

    Args:
      found: from `versions`.
      environment: of the process.
      processes: how many work together.
    """
    value = lambda name: environment.get(name, "").strip().lower()
    shared = processes > 1
    proxies = [
        name
        for name in environment
        if name.lower() in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
    ]
    checks = (
        (
            found["jax"].startswith("0.10.") or found["jaxlib"].startswith("0.10."),
            "JAX 0.10, which deadlocks on machines of few cores: batched triangular solves starve its threads",
            "install jax 0.9.2 or 0.11 and newer",
        ),
        (
            found["jax"] != found["jaxlib"],
            f"jax {found['jax']} with jaxlib {found['jaxlib']}",
            "install the same version of both",
        ),
        (
            value("JAX_ENABLE_X64") in ("0", "false", "off")
            or value("JAX_DEFAULT_DTYPE_BITS") == "32",
            "single precision asked for by JAX_ENABLE_X64 or JAX_DEFAULT_DTYPE_BITS",
            "unset it: energies per electron to 1e-6 are lost in single precision",
        ),
        (
            value("NVIDIA_TF32_OVERRIDE") == "1",
            "NVIDIA_TF32_OVERRIDE=1",
            "unset it: products of matrices would have three digits",
        ),
        (
            bool(proxies) and shared,
            f"web proxies set ({', '.join(sorted(proxies))}), through which messages between hosts may be sent",
            "add the hosts of the job to no_proxy",
        ),
        (
            bool(value("JAX_COMPILATION_CACHE_DIR")),
            "JAX_COMPILATION_CACHE_DIR: with a cache that was filled before, runs have been seen to hang",
            "unset it",
        ),
        (
            any(name in found for name in PLUGINS) and jax.default_backend() == "cpu",
            "a GPU plugin is installed, but JAX computes on the CPU",
            "look at JAX_PLATFORMS, CUDA_VISIBLE_DEVICES and the driver (nvidia-smi)",
        ),
    )
    return [Finding(what, remedy) for wrong, what, remedy in checks if wrong]
