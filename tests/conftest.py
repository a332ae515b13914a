"""Settings of the test-suite.  Double precision is switched on by heg.gas.system."""

import os

# tests compile much and compute little: a quarter of their time is spared.  test_processes runs as
# users do
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")

import jax
import pytest

import heg  # noqa: F401  sets double precision before any array exists
from heg.parallel.processes import start

start()


@pytest.fixture
def key():
    """The seed of every statistical test."""
    return jax.random.key(20240607)
