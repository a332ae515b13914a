r"""p(K): which plane waves are occupied.  Autoregressive, normalised, sampled exactly.

Electrons are placed one by one, up spin first, each spin in increasing order of orbitals.  The
logits of the next orbital m, r electrons of its spin being left to place, are

.. math:: -\beta\epsilon_m + \ln Z_{r-1}(m+1) + \ell_m(\text{electrons placed}),

the exact conditional of the ideal gas (heg.gas.ideal) with trainable levels epsilon, plus those of
a causal transformer
whose last layer starts at zero: untrained, p(K) is the exact ideal gas.  Conditions that keep K a
set (increasing order, room for the electrons left) are in the mask, so that p is normalised for any
parameters.

The transformer reads one token per electron, its keys and values cached, so that a sample costs N
tokens.
Sources: Vaswani et al., arXiv:1706.03762; as an occupation model of the electron gas, Xie, Zhang
and Wang, SciPost Phys. 14, 154 (2023), doi:10.21468/SciPostPhys.14.6.154.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from heg.gas.ideal import LOG_ZERO, log_partition_table
from heg.gas.plane_waves import Orbitals
from heg.gas.system import System


@dataclasses.dataclass(frozen=True)
class TransformerSize:
    """Size of the transformer: layers (0: trainable levels alone), width of a token, attention
    heads."""

    layers: int
    width: int
    heads: int


class Occupations(NamedTuple):
    """The model of p(K) as pure functions.

    Attributes:
      init: key -> params.
      sample: params, key -> state.                         [N] int32
      log_prob: params, state -> ln p(K).                   []
      ideal_energy: state -> sum of k^2 / 2, hartree.       []
    """

    init: Callable
    sample: Callable
    log_prob: Callable
    ideal_energy: Callable


class CausalTransformer(hk.Module):
    """Tokens [T, F] at positions start, start+1, ... -> [T, width]; earlier keys and values come
    from the cache."""

    def __init__(self, size: TransformerSize, name="transformer"):
        super().__init__(name=name)
        self.size = size

    def empty_cache(self, length: int) -> jax.Array:
        """Keys and values of no token yet.  [layers, 2, length, heads, width / heads]"""
        size = self.size
        return jnp.zeros((size.layers, 2, length, size.heads, size.width // size.heads))

    def __call__(self, tokens, cache, start):
        h = hk.Linear(self.size.width, name="embed")(tokens)
        for layer in range(self.size.layers):
            attended, layer_cache = self._attention(h, cache[layer], start, f"attention_{layer}")
            cache = cache.at[layer].set(layer_cache)
            h = h + attended
            hidden = jnp.tanh(hk.Linear(2 * self.size.width, name=f"hidden_{layer}")(h))
            h = h + hk.Linear(self.size.width, name=f"output_{layer}")(hidden)
        return h, cache

    def _attention(self, h, cache, start, name):
        heads, depth = cache.shape[-2:]
        project = lambda role: hk.Linear(heads * depth, name=f"{name}_{role}")(h).reshape(
            -1, heads, depth
        )
        query, update = project("query"), jnp.stack([project("key"), project("value")])
        cache = lax.dynamic_update_slice(cache, update, (0, start, 0, 0))
        scores = jnp.einsum("thd,shd->hts", query, cache[0]) / np.sqrt(depth)
        causal = jnp.arange(cache.shape[1]) <= start + jnp.arange(len(h))[:, None]
        weights = jax.nn.softmax(jnp.where(causal, scores, LOG_ZERO), axis=-1)
        mixed = jnp.einsum("hts,shd->thd", weights, cache[1]).reshape(len(h), -1)
        return hk.Linear(self.size.width, name=f"{name}_mix")(mixed), cache


class _Slots(NamedTuple):
    """What is known of each place in the sequence before sampling.  All [N]."""

    spin: np.ndarray
    first: np.ndarray  # opens its spin
    left: np.ndarray  # electrons of its spin still to place, itself included


def make_occupations(system: System, orbitals: Orbitals, size: TransformerSize) -> Occupations:
    """p(K) for the given gas and plane waves.

    Args:
      system: the gas.
      orbitals: plane waves that may be occupied.           [M]
      size: of the transformer.
    Returns:
      Pure functions; a state lists the occupied orbitals, increasing within each spin, up first.
    """
    slots = _slots_of(system)
    orbital_features = _orbital_features(system, orbitals)
    energy = jnp.asarray(orbitals.energy)

    def ideal_logits():
        """Exact conditionals of non-interacting electrons with the trained levels.  [N, M]"""
        shift = hk.get_parameter(
            "levels", (len(system.spins), len(energy)), float, init=hk.initializers.Constant(0.0)
        )
        levels = system.beta * (energy + system.fermi_energy * shift)
        tables = jnp.stack([log_partition_table(level, max(system.spins)) for level in levels])
        return (
            tables[:, 1:].transpose(0, 2, 1)[slots.spin, slots.left - 1] - levels[slots.spin]
        ).clip(LOG_ZERO)

    def network():
        """(tokens, cache, start) -> logits [T, M], cache; zero at initialisation.  And the empty
        cache."""
        if size.layers == 0:
            return lambda tokens, cache, start: (
                jnp.zeros((len(tokens), len(energy))),
                cache,
            ), jnp.zeros(())
        transformer = CausalTransformer(size)
        query = hk.Linear(2 * size.width, w_init=jnp.zeros, name="query")
        keys = jnp.tanh(hk.Linear(2 * size.width, name="orbital")(orbital_features))

        def logits(tokens, cache, start):
            h, cache = transformer(tokens, cache, start)
            return query(h) @ keys.T, cache

        return logits, transformer.empty_cache(system.electrons)

    def tokens(previous, slot):
        """What the network reads at a slot: the electron placed last, the spin and the count
        left."""
        feature = jnp.where(slot.first[:, None], 0.0, orbital_features[previous])
        place = jnp.stack([slot.first, slot.spin, slot.left / max(system.spins)], axis=-1)
        return jnp.concatenate([feature, place], axis=-1)

    def conditional(logits, previous, slot):
        """ln p(next orbital | electrons placed), normalised over the orbitals above the last.  [T,
        M]"""
        allowed = slot.first[:, None] | (jnp.arange(len(energy)) > previous[:, None])
        return jax.nn.log_softmax(jnp.where(allowed, logits, LOG_ZERO), axis=-1)

    def log_prob(state):
        previous = jnp.roll(state, 1)
        correction, cache = network()
        slot = jax.tree.map(jnp.asarray, slots)
        logits = ideal_logits() + correction(tokens(previous, slot), cache, 0)[0]
        chosen = jnp.take_along_axis(conditional(logits, previous, slot), state[:, None], axis=1)
        return jnp.sum(chosen)

    def sample(key):
        correction, cache = network()

        def place(carry, inputs):
            previous, cache = carry
            position, slot, logits, key = inputs
            slot = jax.tree.map(lambda value: value[None], slot)
            update, cache = correction(tokens(previous, slot), cache, position)
            chosen = jax.random.categorical(key, conditional(logits + update, previous, slot))
            return (chosen, cache), chosen[0]

        keys = jax.random.split(key, system.electrons)
        inputs = (
            jnp.arange(system.electrons),
            jax.tree.map(jnp.asarray, slots),
            ideal_logits(),
            keys,
        )
        return lax.scan(place, (jnp.zeros(1, int), cache), inputs)[1].astype(jnp.int32)

    model = hk.multi_transform(lambda: (log_prob, (log_prob, sample)))
    some_state = jnp.concatenate([jnp.arange(count) for count in system.spins])
    return Occupations(
        init=lambda key: model.init(key, some_state),
        sample=lambda params, key: model.apply[1](params, None, key),
        log_prob=lambda params, state: model.apply[0](params, None, state),
        ideal_energy=lambda state: jnp.sum(energy[state]),
    )


def _slots_of(system):
    counts = system.spins
    spin = np.repeat(np.arange(len(counts)), counts)
    rank = np.concatenate([np.arange(count) for count in counts])
    return _Slots(spin, rank == 0, np.asarray(counts)[spin] - rank)


def _orbital_features(system, orbitals):
    """Wavevector and energy of each plane wave in units of the thermal Fermi sphere.  [M, d + 1]"""
    scale = system.fermi_wavevector * np.sqrt(1 + system.theta)
    k = orbitals.k / scale
    return jnp.concatenate([k, jnp.sum(k**2, axis=1, keepdims=True) - 1], axis=1)
