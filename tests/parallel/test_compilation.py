import os
import subprocess
import sys
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from heg.parallel.compilation import Program, compiler_threads

# three steps, measurement and quality of a small gas, with and without programs compiled ahead
BOTH_WAYS = """
import jax
from small_runs import small_config
import heg
from heg.config import SystemConfig
from heg.parallel.compilation import Program, compiler_threads
from heg.parallel.processes import start
from heg.training import step
from heg.training.state import FOLDING, MEASURING, key_of_run, stream

start()

def results(solver):
    states = [solver.init(key_of_run(3))]
    records = []
    for _ in range(3):
        state, info = solver.step(states[-1])
        states.append(state)
        records.append(info)
    samples, walk = solver.measure(state.average, stream(state, MEASURING, 0))
    values = solver.per_electron(samples, state.regression)
    quality = solver.quality(state.average, state.walkers, stream(state, FOLDING))
    return [leaf.tobytes() for leaf in jax.device_get(
        jax.tree.leaves((states, records, samples, walk, values, quality))
    )]

gas = SystemConfig(2, 2, 2.0, 0.5, "1")
config = small_config(gas, transformer_layers=0, sampler="metropolis")
expected = results(step.build(config))
step.training_programs.cache_clear()
with compiler_threads() as threads:
    solver = step.build(config)
    solver.compile_ahead(threads)
    found = results(solver)
assert found == expected, "compiled ahead, the numbers are others"
programs = [program for program in vars(solver.programs).values() if isinstance(program, Program)]
late = [program for program in programs if program._jitted._cache_size()]
assert not late, f"compiled when called: {late}"
print(jax.device_count(), "devices agree")
"""


def test_programs_compiled_ahead_give_the_same_numbers_bit_for_bit():
    # with chains every program is there: the measurement draws exactly
    done = subprocess.run(
        [sys.executable, "-c", BOTH_WAYS],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 devices agree" in done.stdout, done.stderr


def test_a_program_serves_other_shapes_than_those_it_was_compiled_for_ahead():
    program = Program(lambda x, factor: factor * jnp.cumsum(x))
    with compiler_threads() as threads:
        program.ahead(threads, np.zeros(3), 1.0)
        np.testing.assert_array_equal(program(np.ones(3), 2.0), [2, 4, 6])
        np.testing.assert_array_equal(program(np.ones(2), 2.0), [2, 4])


def test_a_program_called_off_before_its_turn_is_compiled_when_it_is_called():
    occupied = threading.Event()
    program = Program(jnp.sin)
    with compiler_threads() as threads:
        for _ in range(threads._max_workers):
            threads.submit(occupied.wait)
        program.ahead(threads, np.zeros(2))
        # as at the end of a run that is stopped: what has not begun is called off
        threads.shutdown(wait=False, cancel_futures=True)
        occupied.set()
    np.testing.assert_allclose(program(np.full(2, np.pi / 2)), 1.0, rtol=1e-15)


def test_an_error_of_a_program_compiled_ahead_is_that_of_its_call():
    program = Program(lambda x: x[:2] + x)
    with compiler_threads() as threads, pytest.raises(TypeError, match="shapes"):
        program.ahead(threads, np.zeros(3))
