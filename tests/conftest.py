"""Settings of the test-suite.  Double precision is switched on by heg.gas.system."""

import gc
import os

import jax
import pytest
import shape_checker

# Tests compile much and compute little: XLA is asked for no optimisation, and where it can be
# told, not to fuse by its slower emitters, which spares a third of the time of a small run.  The
# tutorials, which are executed with the documentation, have the emitters of users' runs
FLAGS = [
    "--xla_backend_optimization_level=0",
    # a loaded machine may keep one device waiting for another longer than XLA's 40 s
    "--xla_cpu_collective_call_terminate_timeout_seconds=600",
]
if jax.__version_info__ < (0, 10):  # later versions do not know these flags, or gain nothing
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
    # one part for each program: that many are made at once gains nothing on two cores
    FLAGS.append("--xla_cpu_parallel_codegen_split_count=1")
# before the first array; processes that tests start inherit it
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))

shape_checker.install()

from fake_solver import USERS, FakeSolver  # noqa: E402

import heg  # noqa: E402, F401  sets double precision before any array exists
from heg.parallel.processes import start  # noqa: E402

start()

# a trace makes many small objects, and most live on: looking for rubbish among them takes a fifth
# of its time
gc.freeze()
gc.set_threshold(100_000)


# the files that take longest: begun first, so that no process waits for the other at the end
LONGEST = (
    "test_survey",
    "test_mpirun",
    "test_measure",
    "test_free_energy",
    "test_step",
    "test_compilation",
    "test_classical",
    "test_developing",
    "test_cli",
    "test_api",
    "test_second_order",
    "test_control_variates",
    "test_table",
)


def pytest_collection_modifyitems(items):
    """Sorts the files; the order within each stays."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONGEST)))


@pytest.fixture
def key():
    """The seed of every statistical test."""
    return jax.random.key(20240607)


@pytest.fixture(scope="module")
def fake_runs():
    """All runs of a module are those of a solver without electrons."""
    with pytest.MonkeyPatch.context() as patch:
        for module in USERS:
            patch.setattr(module, "build", FakeSolver)
        yield
