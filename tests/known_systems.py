"""Systems with known answers, and the tools that several tests share."""

import csv
import functools
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from heg.gas.coulomb import madelung
from heg.gas.ideal import log_partition
from heg.gas.plane_waves import Orbitals, plane_waves, shell_ends
from heg.gas.system import System
from heg.model.density_matrix import Model, Params
from heg.model.flow import Flow, FlowSize
from heg.model.kinetic import make_kinetic_energy
from heg.model.local_energy import make_local_energy
from heg.model.occupations import Occupations, TransformerSize, make_occupations
from heg.model.wavefunction import make_log_psi, make_score
from heg.sampling.batch import Walkers
from heg.sampling.exact_draws import make_draw
from heg.training.control_variates import make_controls

# a gas of each kind: two and three dimensions, one spin and two
POLARIZED_2D = System(3, 0, 2, rs=2.0, theta=0.8, twist=(0.0, 0.0))
SPINS_2D = System(2, 1, 2, rs=2.0, theta=0.8, twist=(0.25, 0.0))
POLARIZED_3D = System(3, 0, 3, rs=2.0, theta=0.8, twist=(0.0, 0.25, 0.0))
SPINS_3D = System(2, 2, 3, rs=2.0, theta=0.8, twist=(0.0, 0.0, 0.0))
GASES = {
    "2D-polarized": POLARIZED_2D,
    "2D-spins": SPINS_2D,
    "3D-polarized": POLARIZED_3D,
    "3D-spins": SPINS_3D,
}
# where compilation is slow: a polarised gas is the part of equal spins of these
GASES_OF_TWO_SPINS = {name: GASES[name] for name in ("2D-spins", "3D-spins")}


def reference_rows(name: str) -> list[dict[str, str]]:
    """Rows of a table in tests/data; the lines of its header tell source and units."""
    lines = (Path(__file__).parent / "data" / name).read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def lowest_shells(system: System, fewest: int) -> Orbitals:
    """Whole shells of at least `fewest` plane waves, the lowest."""
    orbitals = plane_waves(system, (1 + 3 * fewest) * (2 * np.pi / system.box) ** 2 / 2)
    ends = shell_ends(orbitals.energy)
    return orbitals.first(int(ends[ends >= fewest][0]))


def all_states(spins: tuple[int, ...], orbitals: int) -> np.ndarray:
    """Every set K of occupied orbitals, increasing within each spin.  [states, N]"""
    choices = [itertools.combinations(range(orbitals), count) for count in spins]
    return np.array(
        [np.concatenate(parts) for parts in itertools.product(*choices)], dtype=np.int32
    )


def ground_state(system: System) -> jax.Array:
    """The lowest orbitals filled.  [N]"""
    return jnp.concatenate([jnp.arange(count, dtype=jnp.int32) for count in system.spins])


def generator(key) -> np.random.Generator:
    """NumPy's random numbers: nothing to compile, whatever the shapes."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def random_like(tree, key, size: float):
    """Gaussian noise in the shapes of a pytree."""
    rng = generator(key)
    return jax.tree.map(lambda leaf: jnp.asarray(size * rng.normal(size=leaf.shape)), tree)


def random_positions(system: System, key, *batch: int) -> jax.Array:
    """Uniform in the box.  [*batch, N, d]"""
    return jnp.asarray(system.box * generator(key).random((*batch, system.electrons, system.dim)))


class CompiledFlow(Flow):
    """The flow with its methods compiled, for calls from outside of a program."""

    forward = jax.jit(Flow.forward, static_argnums=0)
    inverse = jax.jit(Flow.inverse, static_argnums=0)


class CompiledOccupations(Occupations):
    """p(K) with its methods compiled, for calls from outside of a program."""

    sample = jax.jit(Occupations.sample, static_argnums=0)
    log_prob = jax.jit(Occupations.log_prob, static_argnums=0)


def compiled_occupations(system: System, orbitals: Orbitals, size: TransformerSize):
    """p(K) of the given gas, plane waves and transformer."""
    return CompiledOccupations(**vars(make_occupations(system, orbitals, size)))


@functools.cache
def make_model(
    system: System, orbitals: int, flow_layers: int = 2, transformer_layers: int = 1
) -> Model:
    """A density matrix of small networks on the lowest orbitals; one for all tests, its functions
    jitted."""
    kept = lowest_shells(system, orbitals)
    occupations = compiled_occupations(
        system, kept, TransformerSize(transformer_layers, width=8, heads=2)
    )
    flow = CompiledFlow(system, FlowSize(flow_layers, width=8))
    return Model(
        occupations,
        flow,
        jax.jit(make_log_psi(system, kept, flow)),
        jax.jit(make_score(system, kept, flow)),
        jax.jit(make_local_energy(system, make_kinetic_energy(system, kept, flow))),
    )


@functools.cache
def make_exact_draw(system: System, orbitals: int) -> Callable:
    """Exact draws of x, jitted, from the model that `make_model` gives for these arguments.

    They are no longer shared among devices.  Programs on shared arrays wait for each other: many
    that are begun without a look at their results may fill the queue of one device, and wait
    forever for a program that another has no place for.
    """
    flow = make_model(system, orbitals).flow
    draw = jax.jit(make_draw(system, lowest_shells(system, orbitals), flow, chunk=500))
    return lambda *arguments: jax.tree.map(jnp.asarray, jax.device_get(draw(*arguments)))


@functools.cache
def controls_of_lowest(system: System, orbitals: int) -> Callable:
    """Control variates on the lowest orbitals, jitted."""
    return jax.jit(make_controls(system, lowest_shells(system, orbitals)))


def random_params(model: Model, key, occupations: float = 0.3, flow: float = 0.15) -> Params:
    """Parameters of which none is at its initial value; so small that the flow is a bijection."""
    shapes = Params(
        jax.eval_shape(model.occupations.init, key), jax.eval_shape(model.flow.init, key)
    )
    return Params(
        random_like(shapes.occupations, key, occupations), random_like(shapes.flow, key, flow)
    )


class Draws(NamedTuple):
    """Exact draws at random parameters."""

    model: Model
    params: Params
    walkers: Walkers
    failures: int


@functools.cache
def exact_draws(system: System, orbitals: int, draws: int) -> Draws:
    """Of a random model; made once for all tests.  The flow of this seed keeps electrons apart."""
    model, key = make_model(system, orbitals), jax.random.key(18)
    params = random_params(model, key)
    key_state, key_draw = jax.random.split(key)
    sample = jax.jit(jax.vmap(model.occupations.sample, (None, 0)))
    state = sample(params.occupations, jax.random.split(key_state, draws))
    draw = make_exact_draw(system, orbitals)
    drawn = draw(params.flow, state, jax.random.split(key_draw, draws))
    return Draws(model, params, Walkers(state, drawn.x), int(drawn.redrawn + drawn.lost))


def ideal_log_prob(system: System, orbitals: Orbitals, states) -> np.ndarray:
    """Exact ln p(K) of the canonical ideal gas, the box cut at the given orbitals.  [states]"""
    levels = system.beta * np.asarray(orbitals.energy)
    log_z = sum(float(log_partition(levels, count)) for count in system.spins)
    return -np.sum(levels[states], axis=-1) - log_z


def hartree_fock_energy(system: System) -> tuple[float, float]:
    """Kinetic and Coulomb energy of the filled Fermi sea in three dimensions in closed form,
    Madelung term included."""
    kinetic, coulomb = 0.0, system.electrons * madelung(system) / 2
    for count in system.spins:
        k = lowest_shells(system, count).k[:count]
        transfer = np.sum((k[:, None] - k) ** 2, axis=-1)[np.triu_indices(count, 1)]
        kinetic += np.sum(k**2) / 2
        coulomb -= np.sum(4 * np.pi / transfer) / system.box**3
    return kinetic, coulomb


def assert_equal_within_errors(value, error, expected, bound: float):
    """|value - expected| < 4 sigma; sigma itself is bounded, lest a noisy test pass by its
    noise."""
    assert np.all(np.asarray(error) < bound), f"the error {np.max(error)} exceeds {bound}"
    deviation = np.max(np.abs(np.asarray(value) - expected) / np.asarray(error))
    assert deviation < 4, f"{deviation} standard errors"


def mean_and_error(samples, axis: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error of independent samples along an axis."""
    samples = np.asarray(samples)
    return samples.mean(axis), samples.std(axis, ddof=1) / math.sqrt(samples.shape[axis])
