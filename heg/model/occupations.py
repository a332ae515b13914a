r"""p(K), the probability of the set of occupied plane waves: autoregressive and normalised.

Electrons are placed one by one, up spin first, each spin in increasing order of orbitals.  Let r
electrons of its spin be left to place.  The logits of the next orbital m are

.. math:: -\beta\epsilon_m + \ln Z_{r-1}(m+1) + \ell_m(\text{electrons placed}),

The first two terms are the exact conditional of the ideal gas (heg.gas.ideal), with trainable
levels epsilon.  l_m comes from a causal transformer whose last layer starts at zero: untrained,
p(K) is the exact ideal gas.  The mask holds the conditions that keep K a set: increasing order,
and room for the electrons left.  So p is normalised for any parameters.

The transformer reads one token for each electron and caches its keys and values, so that a sample
costs N tokens.
Sources: Vaswani et al., arXiv:1706.03762; as an occupation model of the electron gas, Xie, Zhang
and Wang, SciPost Phys. 14, 154 (2023), doi:10.21468/SciPostPhys.14.6.154.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from heg.gas.ideal import LOG_ZERO, log_partition_table
from heg.gas.plane_waves import Orbitals
from heg.gas.system import System


@dataclasses.dataclass(frozen=True)
class TransformerSize:
    """Size of the transformer.

    Attributes:
      layers: 0: trainable levels alone.
      width: of a token.
      heads: of the attention.
    """

    layers: int
    width: int
    heads: int


class CausalTransformer(hk.Module):
    """Tokens at positions start, start + 1, ... to hidden states, with a cache.

    The keys and values of earlier tokens come from the cache.
    """

    def __init__(self, size: TransformerSize, name="transformer"):
        super().__init__(name=name)
        self.size = size

    def empty_cache(self, length: int) -> jax.Array:
        """Keys and values of no token yet.  [layers, 2, length, heads, width / heads]"""
        size = self.size
        depth = size.width // size.heads
        return jnp.zeros((size.layers, 2, length, size.heads, depth))

    def __call__(self, tokens: Float[Array, "tokens features"], cache: jax.Array, start):
        """Hidden states [tokens, width] and the cache with the new keys and values."""
        width = self.size.width
        h = _linear("embed", tokens, width)
        for layer in range(self.size.layers):
            # each half of a layer adds to what it was given
            name = f"attention_{layer}"
            attended, layer_cache = self._attention(h, cache[layer], start, name)
            cache = cache.at[layer].set(layer_cache)
            h = h + attended
            hidden = _linear(f"hidden_{layer}", h, 2 * width)
            activated = jnp.tanh(hidden)
            h = h + _linear(f"output_{layer}", activated, width)
        return h, cache

    def _attention(self, h, cache, start, name):
        heads, depth = cache.shape[-2:]

        def project(role):
            projected = _linear(f"{name}_{role}", h, heads * depth)
            return projected.reshape(-1, heads, depth)

        query = project("query")
        key = project("key")
        value = project("value")
        # the new tokens take their places in the cache
        place = (0, start, 0, 0)
        cache = lax.dynamic_update_slice(cache, jnp.stack([key, value]), place)
        keys, values = cache
        position = start + jnp.arange(len(h))[:, None]
        mixed = _attend(query, keys, values, position)
        mixed = mixed.reshape(len(h), -1)
        return _linear(f"{name}_mix", mixed, self.size.width), cache


def _attend(query, keys, values, position):
    """Values mixed by the attention of every head.  [T, heads, depth]"""
    depth = query.shape[-1]
    # of every token t against every key s, for each head
    scores = jnp.einsum("thd,shd->hts", query, keys)
    scores = scores / np.sqrt(depth)
    # positions of the cache that are still empty are later ones, which the mask hides
    seen = jnp.arange(len(keys)) <= position
    scores = jnp.where(seen, scores, LOG_ZERO)
    weights = jax.nn.softmax(scores, axis=-1)
    return jnp.einsum("hts,shd->thd", weights, values)


def _linear(name, h, width):
    # a function, as Haiku puts the name of a method into those of its parameters
    return hk.Linear(width, name=name)(h)


class _NoCorrection:
    """The correction where there are trainable levels alone: logits of zero."""

    def __init__(self, orbitals: int):
        self.orbitals = orbitals
        self.empty_cache = jnp.zeros(())

    def __call__(self, tokens, cache, start):
        return jnp.zeros((len(tokens), self.orbitals)), cache


class _Correction:
    """The correction l_m of the logits by the transformer, made inside of a Haiku transform.

    Attributes:
      empty_cache: of no electron yet.
    """

    def __init__(self, size: TransformerSize, electrons: int, orbital_features: jax.Array):
        self.transformer = CausalTransformer(size)
        # zero at initialisation: the ideal gas
        self.query = hk.Linear(2 * size.width, w_init=jnp.zeros, name="query")
        self.keys = jnp.tanh(hk.Linear(2 * size.width, name="orbital")(orbital_features))
        self.empty_cache = self.transformer.empty_cache(electrons)

    def __call__(self, tokens, cache, start):
        """Logits [tokens, orbitals] and the cache."""
        h, cache = self.transformer(tokens, cache, start)
        # a query for each token against the key of each orbital
        return self.query(h) @ self.keys.T, cache


class _Slots(NamedTuple):
    """What is known of each position in the sequence before sampling.

    Attributes:
      spin: 0 for up, 1 for down.
      first: whether it opens its spin.
      left: electrons of its spin still to place, itself included.
    """

    spin: Int[np.ndarray, " electrons"]
    first: Bool[np.ndarray, " electrons"]
    left: Int[np.ndarray, " electrons"]


class _SlotToFill(NamedTuple):
    """What the sampling of one electron needs, stacked for all of them.

    Attributes:
      position: in the sequence.
      known: before sampling.
      ideal_logits: of the ideal gas.
      key: random.
    """

    position: jax.Array
    known: _Slots
    ideal_logits: jax.Array
    key: jax.Array


class _Placed(NamedTuple):
    """The electron placed last and the cache of all that are placed."""

    orbital: jax.Array
    cache: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Occupations:
    """The model of p(K) as pure functions of its parameters and one state.

    A state lists the occupied orbitals, increasing within each spin, up first.

    Attributes:
      system: the gas.
      size: of the transformer.
      energy: k^2 / 2 of the plane waves that may be occupied, hartree.
      orbital_features: what the transformer knows of each of them.
    """

    system: System
    size: TransformerSize
    energy: Float[Array, " orbitals"]
    orbital_features: Float[Array, "orbitals features"]

    def init(self, key: jax.Array) -> dict:
        """Parameters of the exact ideal gas."""
        some_state = jnp.concatenate([jnp.arange(count) for count in self.system.spins])
        return self._transformed.init(key, some_state)

    def sample(self, params: dict, key: jax.Array) -> Int[Array, " electrons"]:
        """Exact sample of K."""
        return self._transformed.apply.sample(params, None, key)

    def log_prob(self, params: dict, state: Int[Array, " electrons"]) -> Float[Array, ""]:
        """ln p(K)."""
        return self._transformed.apply.log_prob(params, None, state)

    def ideal_energy(self, state: Int[Array, " electrons"]) -> Float[Array, ""]:
        """Sum of k^2 / 2, hartree."""
        return jnp.sum(self.energy[state])

    @functools.cached_property
    def _transformed(self):
        """The functions below that make parameters, as pure functions."""
        functions = _Functions(log_prob=self._log_prob, sample=self._sample)
        return hk.multi_transform(lambda: (self._log_prob, functions))

    @functools.cached_property
    def _slots(self) -> _Slots:
        counts = self.system.spins
        spin = np.repeat(np.arange(len(counts)), counts)
        rank = np.concatenate([np.arange(count) for count in counts])
        of_its_spin = np.asarray(counts)[spin]
        return _Slots(spin, first=rank == 0, left=of_its_spin - rank)

    def _ideal_logits(self):
        """Exact conditionals of electrons without interaction at the trained levels.  [N, M]"""
        system = self.system
        slots = self._slots
        shift = hk.get_parameter(
            "levels",
            (len(system.spins), len(self.energy)),
            float,
            init=hk.initializers.Constant(0.0),
        )
        # the trained levels epsilon of each spin; at first those of the plane waves
        levels = self.energy + system.fermi_energy * shift
        levels = system.beta * levels
        most = max(system.spins)
        # ln Z_r(m) of each spin at its own levels
        tables = jnp.stack([log_partition_table(level, most) for level in levels])
        # ln Z_{r-1}(m + 1) by spin, r - 1 and m; it is zero where no room is left for the others
        partitions = tables[:, 1:].transpose(0, 2, 1)
        of_rest = partitions[slots.spin, slots.left - 1]
        logits = of_rest - levels[slots.spin]
        return logits.clip(LOG_ZERO)

    def _correction(self):
        if self.size.layers == 0:
            return _NoCorrection(len(self.energy))
        return _Correction(self.size, self.system.electrons, self.orbital_features)

    def _tokens(self, previous, slot):
        """Input of the network at a slot: the last electron, the spin, the count left."""
        of_previous = self.orbital_features[previous]
        # the first electron of a spin has none before it
        feature = jnp.where(slot.first[:, None], 0.0, of_previous)
        count = slot.left / max(self.system.spins)
        position = jnp.stack([slot.first, slot.spin, count], axis=-1)
        return jnp.concatenate([feature, position], axis=-1)

    def _conditional(self, logits, previous, slot):
        """ln p(next orbital | electrons placed), over the orbitals above the last.  [T, M]"""
        above = jnp.arange(len(self.energy)) > previous[:, None]
        # the first electron of a spin may take any orbital
        allowed = slot.first[:, None] | above
        logits = jnp.where(allowed, logits, LOG_ZERO)
        return jax.nn.log_softmax(logits, axis=-1)

    def _log_prob(self, state):
        # the last electron before each; that of the first slot of a spin is not looked at
        previous = jnp.roll(state, 1)
        correction = self._correction()
        slots = jax.tree.map(jnp.asarray, self._slots)
        ideal_logits = self._ideal_logits()
        tokens = self._tokens(previous, slots)
        update, _ = correction(tokens, correction.empty_cache, 0)
        # all conditionals at once, as the state is known; ln p(K) is their sum
        logits = ideal_logits + update
        log_p = self._conditional(logits, previous, slots)
        chosen = jnp.take_along_axis(log_p, state[:, None], axis=1)
        return jnp.sum(chosen)

    def _sample(self, key):
        electrons = self.system.electrons
        correction = self._correction()

        def place(placed, slot):
            # one token at a time: an axis of length one for the network
            known = jax.tree.map(lambda value: value[None], slot.known)
            # what the electron placed last tells about the next one
            tokens = self._tokens(placed.orbital, known)
            update, cache = correction(tokens, placed.cache, slot.position)
            logits = slot.ideal_logits + update
            log_p = self._conditional(logits, placed.orbital, known)
            orbital = jax.random.categorical(slot.key, log_p)
            return _Placed(orbital, cache), orbital[0]

        # the scan goes over the electrons, each with a key of its own
        keys = jax.random.split(key, electrons)
        slots = _SlotToFill(
            position=jnp.arange(electrons),
            known=jax.tree.map(jnp.asarray, self._slots),
            ideal_logits=self._ideal_logits(),
            key=keys,
        )
        nobody = _Placed(jnp.zeros(1, int), correction.empty_cache)
        _, state = lax.scan(place, nobody, slots)
        return state.astype(jnp.int32)


class _Functions(NamedTuple):
    """The functions of one set of parameters."""

    log_prob: Callable
    sample: Callable


def make_occupations(system: System, orbitals: Orbitals, size: TransformerSize) -> Occupations:
    """The model of p(K) for the given gas, plane waves that may be occupied, and transformer."""
    # made here and not inside of the functions, where a loop over the electrons would repeat it
    features = _orbital_features(system, orbitals)
    return Occupations(system, size, jnp.asarray(orbitals.energy), features)


def _orbital_features(system, orbitals):
    """Wavevectors and energies in units of the thermal Fermi sphere.  [M, d + 1]"""
    scale = system.fermi_wavevector * jnp.sqrt(1 + system.theta)
    k = orbitals.k / scale
    square = jnp.sum(k**2, axis=1, keepdims=True)
    # the energy is counted from the Fermi level
    return jnp.concatenate([k, square - 1], axis=1)
