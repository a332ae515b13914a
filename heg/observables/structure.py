r"""Where the electrons are relative to each other: static structure factor and pair correlation, by
spin.

.. math:: S_{\sigma\sigma'}(q) = \frac1N \langle \rho^\sigma_q \rho^{\sigma'}_{-q} \rangle, \qquad
          g_{\sigma\sigma'}(r) = \frac{L^d}{N_\sigma N_{\sigma'}}
          \Big\langle \sum_{i \in \sigma,\, j \in \sigma',\, i \ne j} \delta(r - x_i + x_j)
          \Big\rangle

with rho_q the sum of e^{-iqx}.  S = S_uu + 2 S_ud + S_dd is that of the density, S_uu - 2 S_ud +
S_dd that of the spin. S is averaged over shells of reciprocal vectors; g over separations r of the
cell around an electron, |r_a| <= L/2, that
lie in a spherical shell: its volume is that of the shell inside the cell, also beyond L/2.  The
same at z = f(x), where the electrons are distributed as bare determinants, shows the hole that
exchange digs alone; the mean displacement (z_i - z_j - x_i + x_j) . r / |r| of a pair at separation
r shows what the flow adds.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import quad

from heg.gas.ideal_pairs import pair_occupations
from heg.gas.plane_waves import Orbitals, density_waves
from heg.gas.system import System

LONGEST = 4.0  # reciprocal vectors up to LONGEST k_F
WIDTH = 1 / 25  # vectors whose lengths agree to WIDTH k_F are averaged over
BIN = {2: 0.1, 3: 0.2}  # width of the bins of separations, in units of r_s
CORNER = (
    5  # the last bin, at the corners of the cell, is at least CORNER times as large as the first
)


class Shells(NamedTuple):
    """Vectors grouped by length.

    Attributes:
      length: mean length in each shell, 1/bohr.            [S]
      count: vectors in each shell.                         [S]
      place: shell of each vector; -1 for those left out.   [vectors] int
    """

    length: np.ndarray
    count: np.ndarray
    place: np.ndarray

    def at_density(self, rs: float) -> "Shells":
        """Those of the gas of the given r_s (bohr, may be traced), from those of r_s = 1."""
        return self._replace(length=self.length / rs)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Of a value of each vector over its shell; no vector may be left out.  [vectors] -> [S]"""
        return np.bincount(self.place, values) / self.count


class Grid(NamedTuple):
    """Where S and g are known.

    Attributes:
      shells: of the reciprocal vectors with components -highest ... highest, the last one from 0
        on.
      highest: component.
      weight: share of each vector, and of its opposite where that is left out, in its shell.  [S, vectors]
      edges: of the bins of r, bohr.                        [bins + 1]
      share: of the cell's volume in each bin.              [bins]
    """

    shells: Shells
    highest: int
    weight: np.ndarray
    edges: np.ndarray
    share: np.ndarray

    def at_density(self, rs: float) -> "Grid":
        """That of the gas of the given r_s (bohr, may be traced), from that of r_s = 1."""
        return self._replace(shells=self.shells.at_density(rs), edges=self.edges * rs)


class Structure(NamedTuple):
    """Of one configuration, for the pairs of spins uu, or uu, ud, dd.

    Attributes:
      s: S by shell.                                        [spin pairs, S]
      g: g by bin.                                          [spin pairs, bins]
      g_bare: g of z by bin.                                [spin pairs, bins]
      displaced: g times the displacement of pairs by the flow along r, bohr.    [spin pairs, bins]
    """

    s: jax.Array
    g: jax.Array
    g_bare: jax.Array
    displaced: jax.Array


def group_by_length(length: np.ndarray, system: System) -> Shells:
    """Shells of vectors whose lengths (1/bohr) agree to WIDTH k_F; without twist the lowest are
    those of the lattice.

    Args:
      length: of each vector; inf for one that is left out.  [vectors]
    """
    kept = np.isfinite(length)
    place = np.full(len(length), -1)
    _, place[kept] = np.unique(
        np.round(length[kept] / (WIDTH * system.fermi_wavevector)), return_inverse=True
    )
    count = np.bincount(place[kept])
    return Shells(np.bincount(place[kept], length[kept]) / count, count, place)


def total(s: np.ndarray) -> np.ndarray:
    """S of all electrons from those of the pairs: up up, and up down and down down where there are
    both spins.

    Args:
      s: as in `Structure`.                                 [1 or 3, ...]
    """
    return s[0] if len(s) == 1 else s[0] + 2 * s[1] + s[2]


def grid_of(system: System) -> Grid:
    """Shells of q up to LONGEST k_F; bins of BIN r_s up to the corners of the cell, where the last
    is wider.

    They are those of r_s = 1, scaled, so that rounding groups them alike at every density (r_s may
    be traced).
    """
    rs, system = system.rs, system.of_unit_density
    unit = 2 * np.pi / system.box
    highest = int(LONGEST * system.fermi_wavevector / unit)
    axes = [np.arange(-highest, highest + 1)] * (system.dim - 1) + [np.arange(highest + 1)]
    n = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, system.dim)
    norm = np.linalg.norm(n, axis=1)
    multiplicity = np.where(n[:, -1] > 0, 2, 1)
    shells = group_by_length(np.where((norm > 0) & (norm <= highest), unit * norm, np.inf), system)
    weight = (shells.place == np.arange(len(shells.count))[:, None]) * multiplicity
    farthest = np.sqrt(system.dim) / 2 * system.box
    edges = np.arange(0, farthest, BIN[system.dim])
    inside = np.array([ball_in_cell(edge / system.box, system.dim) for edge in edges])
    kept = 1 - inside >= CORNER * inside[1]
    edges, inside = np.append(edges[kept], farthest), np.append(inside[kept], 1.0)
    grid = Grid(shells, highest, weight / weight.sum(axis=1, keepdims=True), edges, np.diff(inside))
    return grid.at_density(rs)


def ball_in_cell(radius: float, dim: int) -> float:
    """Volume of a ball around the centre of a square or cube of side 1 that lies inside.  Accuracy:
    1e-9."""
    if dim == 2:
        if radius <= 0.5:
            return np.pi * radius**2
        if radius >= np.sqrt(0.5):
            return 1.0
        beyond = radius**2 * np.arccos(0.5 / radius) - 0.5 * np.sqrt(radius**2 - 0.25)
        return np.pi * radius**2 - 4 * beyond
    if radius <= 0.5:
        return 4 / 3 * np.pi * radius**3
    if radius >= np.sqrt(0.75):
        return 1.0
    slice_at = lambda height: ball_in_cell(np.sqrt(max(radius**2 - height**2, 0.0)), 2)
    kinks = [np.sqrt(radius**2 - edge) for edge in (0.25, 0.5) if 0 < radius**2 - edge < 0.25]
    return 2 * quad(slice_at, 0, 0.5, points=kinks, epsabs=1e-10)[0]


def make_structure(system: System, grid: Grid) -> Callable:
    """Structure as a function of x and z [N, d]."""
    electrons, box, up, down = system.electrons, system.box, system.n_up, system.n_down
    first, second = np.triu_indices(electrons, 1)
    kind = (first >= up).astype(int) + (second >= up)
    # g is a mean over ordered pairs; of unlike spins only one order is of this kind
    ordered = [2 / up**2, 1 / (up * down), 2 / down**2] if down else [2 / up**2]
    scale = np.array(ordered)[:, None] / grid.share
    shape, width = scale.shape, grid.edges[1]

    def separations(x):
        r = x[first] - x[second]
        r = r - box * jnp.round(r / box)
        return r, jnp.linalg.norm(r, axis=-1)

    def by_bin(distance, values):
        place = jnp.minimum((distance / width).astype(int), shape[1] - 1)
        return scale * jnp.zeros(shape).at[kind, place].add(values)

    def structure(x, z):
        density = [
            density_waves(2 * np.pi / box * x[part], grid.highest).ravel() for part in system.parts
        ]
        pairs = [(a, b) for place, a in enumerate(density) for b in density[place:]]
        products = jnp.stack(
            [jnp.real(a) * jnp.real(b) + jnp.imag(a) * jnp.imag(b) for a, b in pairs]
        )
        r, distance = separations(x)
        moved = (z - x)[first] - (z - x)[second]
        along = jnp.sum(moved * r, axis=-1) / distance
        g, displaced = by_bin(distance, 1.0), by_bin(distance, along)
        return Structure(
            products @ grid.weight.T / electrons, g, by_bin(separations(z)[1], 1.0), displaced
        )

    return structure


def ideal_structure(
    system: System, orbitals: Orbitals, grid: Grid, points: int | None = None
) -> Structure:
    r"""Exact S and g of the canonical ideal gas; its electrons are displaced by nothing.

    With c(q) the sum of <n_k n_{k+q}> of one spin, S_ss(q) = (N_s - c(q)) / N and
    g_ss(r) = sum_{q != 0} c(q) (1 - cos qr) / N_s^2; of opposite spins S = 0 and g = 1.

    Args:
      orbitals: plane waves that hold all of the gas.
      points: of a mesh along each side of the cell, on which g is averaged over the bins.
    Accuracy: S 1e-9; g that of the mesh, about the share of a bin that is wider or narrower on it.
    """
    mesh = (points or {2: 1000, 3: 200}[system.dim],) * system.dim
    place = np.indices(mesh).reshape(system.dim, -1).T / mesh[0]
    distance = system.box * np.linalg.norm(place - np.round(place), axis=1)
    bins = np.minimum(distance / grid.edges[1], len(grid.share) - 1).astype(int)
    found = []
    for count in system.spins:
        pairs = pair_occupations(system.beta * orbitals.energy, count)
        first, second = np.nonzero(~np.eye(len(pairs), dtype=bool))
        transfer = orbitals.n[second] - orbitals.n[first]
        weight, table = pairs[first, second], np.zeros(mesh)
        np.add.at(table, tuple((transfer % mesh[0]).T), weight)
        g = (weight.sum() - np.fft.fftn(table).real.ravel()) / count**2
        inside = np.all(np.abs(transfer) <= grid.highest, axis=1) & (transfer[:, -1] >= 0)
        shape = (2 * grid.highest + 1,) * (system.dim - 1) + (grid.highest + 1,)
        shift = np.append(np.full(system.dim - 1, grid.highest), 0)
        transfers = np.zeros(shape)
        np.add.at(transfers, tuple((transfer[inside] + shift).T), weight[inside])
        s = (count - grid.weight @ transfers.ravel()) / system.electrons
        found.append(
            (
                s,
                np.bincount(bins, g, len(grid.share))
                / np.bincount(bins, minlength=len(grid.share)),
            )
        )
    if len(found) > 1:
        found.insert(1, (np.zeros_like(found[0][0]), np.ones_like(found[0][1])))
    s, g = (np.stack(parts) for parts in zip(*found))
    return Structure(s, g, g, np.zeros_like(g))
