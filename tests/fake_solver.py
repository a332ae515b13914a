"""A solver without electrons, for tests of files, stops, locks and tables: nothing is compiled.

Its numbers are random, but those of the run's own streams: a run that is continued has the history
of one that never stopped, another seed or learning rate has another.  Physics is tested elsewhere,
with heg.training.step.build.
"""

import jax
import numpy as np

from heg.cli import solve as command
from heg.gas.ideal import choose_cutoff
from heg.model.density_matrix import Params
from heg.runs import solve, warm_start
from heg.sampling.batch import Walk, Walkers
from heg.sampling.folds import Quality
from heg.statistics import independent
from heg.training.control_variates import Regression
from heg.training.state import SAMPLING, StepInfo, TrainState, stream
from heg.training.step import FOLD_SAMPLES

USERS = (solve, warm_start, command)  # the modules whose `build` makes the solver of a run


class FakeSolver:
    """The interface of heg.training.step.Solver that runs use."""

    def __init__(self, config):
        self.config = config
        self.system = config.system.build()
        self.cutoff = choose_cutoff(
            self.system, config.model.orbital_tolerance, config.model.min_orbitals
        )
        self.template = jax.tree.map(np.zeros_like, self.init(jax.random.key(0)))

    def init(self, key):
        levels = np.zeros((1, len(self.cutoff.orbitals.energy)))
        layers = self.config.model.flow_layers
        network = {
            "hidden": np.zeros((layers, self.system.dim + 1, 2)),
            "shift": np.zeros((layers, 2)),
            "output": np.zeros((layers, 2)),
        }
        params = Params({"~": {"levels": levels}}, {"same": network})
        return TrainState(
            step=np.array(0),
            params=params,
            opt_state=(),
            average=params,
            walkers=self._walkers(generator(key)),
            regression=Regression(np.eye(2), np.zeros((2, 2))),
            width=np.array(1.0),
            redrawn=np.array(0),
            key=np.asarray(jax.random.key_data(key)),
        )

    def compile_ahead(self, threads):
        """There is nothing to compile."""

    def step(self, state):
        random = generator(stream(state, SAMPLING))
        values = self._values(state.params, random)
        length = self.config.optimizer.learning_rate
        params = jax.tree.map(
            lambda leaf: np.asarray(leaf) + length * random.normal(size=leaf.shape), state.params
        )
        after = state._replace(
            step=np.asarray(state.step) + 1,
            params=params,
            average=jax.tree.map(lambda one, other: (one + other) / 2, state.average, params),
            walkers=self._walkers(random),
        )
        info = StepInfo(
            estimates={name: independent(samples) for name, samples in values.items()},
            variance=np.var(values["E"], ddof=1),
            acceptance=np.array(1.0),
            redrawn=np.array(0),
            lost=np.array(0),
            min_det=np.array(1.0),
            finite=np.array(True),
            worst=np.array(0),
        )
        return after, info

    def measure(self, params, key):
        random = generator(key)
        values = self._values(params, random)
        return values, Walk(self._walkers(random), 1.0, 1.0, 0, 0)

    def per_electron(self, samples, regression):
        return samples

    def quality(self, params, walkers, key):
        return Quality(np.array(1.0), np.zeros(FOLD_SAMPLES), np.array(0.5))

    def _walkers(self, random):
        batch = self.config.sampler.batch
        state = np.tile(np.arange(self.system.electrons, dtype=np.int32), (batch, 1))
        shape = (batch, self.system.electrons, self.system.dim)
        return Walkers(state, self.system.box * random.random(shape))

    def _values(self, params, random):
        """F, E, ... of a batch; they depend on the parameters."""
        kinetic, potential, entropy = 0.1 * random.normal(size=(3, self.config.sampler.batch))
        kinetic = kinetic + 1 + sum(np.sum(np.asarray(leaf)) for leaf in jax.tree.leaves(params))
        energy = kinetic + potential
        return {
            "F": energy - self.system.temperature * entropy,
            "E": energy,
            "kinetic": kinetic,
            "potential": potential,
            "S": entropy,
        }


def generator(key):
    """NumPy's random numbers for a key of JAX."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def install():
    """Every run of this process is one of the fake solver: for processes of their own."""
    for module in USERS:
        module.build = FakeSolver
