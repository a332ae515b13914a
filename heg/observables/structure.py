r"""Static structure factor and pair correlation function, by spin.

.. math:: S_{\sigma\sigma'}(q) = \frac1N \langle \rho^\sigma_q \rho^{\sigma'}_{-q} \rangle, \qquad
          g_{\sigma\sigma'}(r) = \frac{L^d}{N_\sigma N_{\sigma'}}
          \Big\langle \sum_{i \in \sigma,\, j \in \sigma',\, i \ne j} \delta(r - x_i + x_j)
          \Big\rangle

Here rho_q is the sum of e^{-iqx} over the electrons.  S_uu + 2 S_ud + S_dd is the structure factor
of the density, S_uu - 2 S_ud + S_dd that of the spin.

S is averaged over shells of reciprocal vectors.  g is averaged over separations r in the cell
around an electron, |r_a| <= L/2, that lie in one spherical bin.  The volume of a bin is that of its
part inside the cell, also beyond L/2.

At z = f(x) the electrons are distributed as bare determinants, so g of z shows the hole that
exchange digs alone.  The mean displacement (z_i - z_j - x_i + x_j) . r / |r| of a pair at
separation r shows what the flow adds.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.integrate import quad

from heg.gas.ideal_pairs import pair_occupations
from heg.gas.plane_waves import Orbitals, density_waves, half_lattice
from heg.gas.system import System
from heg.observables.shells import Shells, group_by_length

LONGEST_Q = 4.0  # reciprocal vectors up to LONGEST_Q k_F
BIN_WIDTH = {2: 0.1, 3: 0.2}  # of the bins of separations by dimension, in units of r_s
CORNER_SHARE = 5  # least volume of the last bin, at the corners of the cell, over that of the first
MESH_POINTS = {2: 1000, 3: 200}  # along each side of the cell, for the ideal gas


class Grid(NamedTuple):
    """Shells of q and bins of r, on which S and g are known.

    Attributes:
      shells: of the reciprocal vectors with components -highest ... highest, the last one from 0
        on.
      highest: component.
      weight: share of each vector in its shell; a vector stands for its opposite too, where that is
        left out.                                           [S, vectors]
      edges: of the bins of r, bohr.                        [bins + 1]
      share: of the cell's volume in each bin.              [bins]
    """

    shells: Shells
    highest: int
    weight: np.ndarray
    edges: np.ndarray
    share: np.ndarray

    @property
    def middles(self) -> np.ndarray:
        """Middle of each bin of r, bohr.  [bins]"""
        return (self.edges[1:] + self.edges[:-1]) / 2

    def at_density(self, rs: float) -> "Grid":
        """Grid of the gas of the given r_s (bohr, may be traced), from that of r_s = 1."""
        return self._replace(shells=self.shells.at_density(rs), edges=self.edges * rs)


class Structure(NamedTuple):
    """Structure of one configuration, or its mean, for the pairs of spins uu, or uu, ud, dd.

    Attributes:
      s: S by shell.                                        [spin pairs, S]
      g: g by bin.                                          [spin pairs, bins]
      g_bare: g of z by bin.                                [spin pairs, bins]
      displaced: g times the displacement of pairs by the flow along r, bohr.
                                                            [spin pairs, bins]
    """

    s: jax.Array | np.ndarray
    g: jax.Array | np.ndarray
    g_bare: jax.Array | np.ndarray
    displaced: jax.Array | np.ndarray


def total(s: Float[np.ndarray, "spin_pairs ..."]) -> Float[np.ndarray, " ..."]:
    """S of all electrons from S of the pairs of spins, as in `Structure`."""
    if len(s) == 1:
        return s[0]
    up_up, up_down, down_down = s
    return up_up + 2 * up_down + down_down


def grid_of(system: System) -> Grid:
    """Reciprocal vectors up to LONGEST_Q k_F and separations in bins of BIN_WIDTH r_s, for a gas.

    The last bin is wider, so that enough pairs fall into it.  The grid is that of r_s = 1, scaled:
    rounding then groups vectors alike at every density, and r_s may be traced.
    """
    unit_gas = system.of_unit_density
    unit = unit_gas.wavevector_unit
    highest = int(LONGEST_Q * unit_gas.fermi_wavevector / unit)
    shells, weight = _reciprocal_shells(unit_gas, highest)
    edges, share = _separation_bins(unit_gas)
    grid = Grid(
        shells=shells,
        highest=highest,
        weight=weight,
        edges=edges,
        share=share,
    )
    return grid.at_density(system.rs)


def _reciprocal_shells(system, highest):
    """Shells of half of the reciprocal lattice, and the share of each vector in its shell."""
    half = half_lattice(system.dim, highest)
    norm = np.linalg.norm(half.n, axis=-1).ravel()  # |n|
    # whole shells: the corners of the lattice are left out, and so is q = 0
    inside = (norm > 0) & (norm <= highest)
    unit = system.wavevector_unit
    length = np.where(inside, unit * norm, np.inf)
    shells = group_by_length(length, system)
    # S(q) = S(-q): a vector whose opposite is left out counts twice
    weight = shells.members * half.multiplicity.ravel()
    size = weight.sum(axis=1, keepdims=True)
    return shells, weight / size


def _separation_bins(system):
    """Edges of the bins of r, and the share of the cell's volume in each."""
    dim = system.dim
    farthest = np.sqrt(dim) / 2 * system.box  # the corners
    edges = np.arange(0, farthest, BIN_WIDTH[dim])
    volumes = [ball_in_cell(edge / system.box, dim) for edge in edges]
    # share of the cell inside of each edge
    inside = np.array(volumes)
    # edges that would leave too small a rest at the corners are dropped
    first_bin = inside[1]
    kept = 1 - inside >= CORNER_SHARE * first_bin
    edges = np.append(edges[kept], farthest)
    inside = np.append(inside[kept], 1.0)
    share = np.diff(inside)
    return edges, share


def ball_in_cell(radius: float, dim: int) -> float:
    """Volume inside a square or cube of side 1 of a ball around its centre.

    Accuracy: 1e-9.
    """
    return _disc_in_square(radius) if dim == 2 else _ball_in_cube(radius)


def _disc_in_square(radius):
    """Area of the disc less the segments that stick out at the four sides."""
    if radius <= 0.5:
        return np.pi * radius**2
    if radius >= np.sqrt(0.5):
        return 1.0
    # a sector less its triangle
    sector = radius**2 * np.arccos(0.5 / radius)
    triangle = 0.5 * np.sqrt(radius**2 - 0.25)
    segment = sector - triangle
    return np.pi * radius**2 - 4 * segment


def _ball_in_cube(radius):
    """Integral over the height of the slices, which are discs in a square."""
    if radius <= 0.5:
        return 4 / 3 * np.pi * radius**3
    corner = np.sqrt(0.75)
    if radius >= corner:
        return 1.0

    def slice_area(height):
        squared = max(radius**2 - height**2, 0.0)
        return _disc_in_square(np.sqrt(squared))

    # the area of a slice has kinks where its disc touches the sides and the corners of the square
    kinks = []
    for distance_squared in (0.25, 0.5):
        height_squared = radius**2 - distance_squared
        if 0 < height_squared < 0.25:
            kinks.append(np.sqrt(height_squared))
    # the lower half of the cube is the mirror of the upper one
    half, _ = quad(slice_area, 0, 0.5, points=kinks, epsabs=1e-10)
    return 2 * half


class _PairBins(NamedTuple):
    """Pairs of electrons and the bins of r that count them.

    Attributes:
      box: L, bohr.
      first, second: electrons of each pair.                [pairs]
      kind: 0 for uu, 1 for ud, 2 for dd.                   [pairs]
      scale: g that one pair adds to a bin.                 [spin pairs, bins]
      width: of the bins, bohr.
    """

    box: float
    first: np.ndarray
    second: np.ndarray
    kind: np.ndarray
    scale: np.ndarray
    width: float

    def difference(self, x):
        """Difference of a vector of each electron, for each pair.  [N, d] -> [pairs, d]"""
        return x[self.first] - x[self.second]

    def separation(self, x):
        """Separation of each pair, to the nearest image, and its length."""
        r = self.difference(x)
        images = jnp.round(r / self.box)
        nearest = r - self.box * images
        return nearest, jnp.linalg.norm(nearest, axis=-1)

    def collect(self, distance, values):
        """Sum over pairs of their values by bin, in units of g.  [spin pairs, bins]"""
        last = self.scale.shape[1] - 1  # wider than the others: takes all that is farther
        number = (distance / self.width).astype(int)
        bins = jnp.minimum(number, last)
        empty = jnp.zeros(self.scale.shape)
        return self.scale * empty.at[self.kind, bins].add(values)


def _pair_bins(system, grid):
    up = system.n_up
    down = system.n_down
    first, second = np.triu_indices(system.electrons, 1)
    # g is a mean over ordered pairs; of unlike spins only one order is of this kind
    ordered = [2 / up**2]
    if down:
        ordered += [1 / (up * down), 2 / down**2]
    return _PairBins(
        box=system.box,
        first=first,
        second=second,
        kind=(first >= up).astype(int) + (second >= up),
        scale=np.array(ordered)[:, None] / grid.share,
        width=grid.edges[1],
    )


def make_structure(system: System, grid: Grid) -> Callable[[jax.Array, jax.Array], Structure]:
    """Structure as a function of x [N, d] and z [N, d], bohr."""
    pairs = _pair_bins(system, grid)

    def structure(x: Float[Array, "electrons dim"], z: Float[Array, "electrons dim"]) -> Structure:
        r, distance = pairs.separation(x)
        _, distance_bare = pairs.separation(z)
        # what the flow adds to the distance, to first order in the displacement z - x
        moved = pairs.difference(z - x)
        along = jnp.sum(moved * r, axis=-1) / distance  # its part in the direction of r
        return Structure(
            s=_structure_factor(system, grid, x),
            g=pairs.collect(distance, 1.0),
            g_bare=pairs.collect(distance_bare, 1.0),
            displaced=pairs.collect(distance, along),
        )

    return structure


def _structure_factor(system, grid, x):
    """Re rho_q^* rho_q / N for each pair of spins, mean over shells.  [spin pairs, S]"""
    angle = system.wavevector_unit * x
    densities = []
    for part in system.parts:
        waves = density_waves(angle[part], grid.highest)
        densities.append(waves.ravel())
    # the imaginary part is odd in q: it vanishes in the mean over a shell
    products = []
    for a, b in itertools.combinations_with_replacement(densities, 2):  # uu, ud, dd
        product = jnp.real(a) * jnp.real(b) + jnp.imag(a) * jnp.imag(b)
        products.append(product)
    # einsum("pn,hn->ph") over the reciprocal vectors n
    by_shell = jnp.stack(products) @ grid.weight.T
    return by_shell / system.electrons


def ideal_structure(
    system: System, orbitals: Orbitals, grid: Grid, points: int | None = None
) -> Structure:
    r"""Exact S and g of the canonical ideal gas; its electrons are displaced by nothing.

    With c(q) the sum of <n_k n_{k+q}> of one spin, S_ss(q) = (N_s - c(q)) / N and
    g_ss(r) = sum_{q != 0} c(q) (1 - cos qr) / N_s^2; of opposite spins S = 0 and g = 1.

    Args:
      system: the gas; its coupling does not matter.
      orbitals: plane waves that hold all of the gas.
      grid: of the gas.
      points: of a mesh along each side of the cell, on which g is averaged over the bins.
    Accuracy: S 1e-9; g that of the mesh, about the share of a bin that is wider or narrower on it.
    """
    mesh = (points or MESH_POINTS[system.dim],) * system.dim
    # g of the ideal gas on a mesh, its mean over each bin
    bins = _bins_of_mesh(system, grid, mesh)
    rows_s = []
    rows_g = []
    for count in system.spins:
        correlations = _spin_correlations(system, orbitals, count)
        rows_s.append(_ideal_structure_factor(system, grid, correlations))
        on_mesh = _ideal_pair_correlation(mesh, correlations)
        rows_g.append(_bin_means(on_mesh, bins, len(grid.share)))
    if system.n_down:
        # opposite spins, between the two of equal ones
        rows_s.insert(1, np.zeros_like(rows_s[0]))
        rows_g.insert(1, np.ones_like(rows_g[0]))
    g = np.stack(rows_g)
    return Structure(s=np.stack(rows_s), g=g, g_bare=g, displaced=np.zeros_like(g))


class _SpinCorrelations(NamedTuple):
    """Correlations of the occupations of one spin.

    Attributes:
      electrons: of this spin.
      transfer: integer vector from k to k'.                [pairs of k, d]
      joint: <n_k n_k'>, k != k'.                           [pairs of k]
    """

    electrons: int
    transfer: np.ndarray
    joint: np.ndarray


def _spin_correlations(system, orbitals, count):
    # all ordered pairs of different orbitals
    table = pair_occupations(system.beta * orbitals.energy, count)
    first, second = np.nonzero(~np.eye(len(table), dtype=bool))
    transfer = orbitals.n[second] - orbitals.n[first]
    return _SpinCorrelations(count, transfer, table[first, second])


def _ideal_structure_factor(system, grid, correlations):
    """(N_s - c(q)) / N, mean over shells.  [S]"""
    highest = grid.highest
    transfer = correlations.transfer
    # the vectors of the grid start at -highest, but at 0 along the last direction
    start = np.full(system.dim, highest)
    start[-1] = 0
    shape = start + highest + 1
    c = np.zeros(tuple(shape))
    near = np.all(np.abs(transfer) <= highest, axis=1)
    on_grid = near & (transfer[:, -1] >= 0)
    index = transfer[on_grid] + start
    # c(q), the sum of <n_k n_k'> over all k' - k = q
    np.add.at(c, tuple(index.T), correlations.joint[on_grid])
    mean = grid.weight @ c.ravel()
    return (correlations.electrons - mean) / system.electrons


def _ideal_pair_correlation(mesh, correlations):
    """sum_q c(q) (1 - cos qr) / N_s^2 at the points of the mesh.  [points]"""
    c = np.zeros(mesh)
    # transfers beyond the mesh fold back onto it, where their cosines are the same
    index = correlations.transfer % mesh[0]
    np.add.at(c, tuple(index.T), correlations.joint)
    cosines = np.fft.fftn(c).real.ravel()
    return (correlations.joint.sum() - cosines) / correlations.electrons**2


def _bins_of_mesh(system, grid, mesh):
    """Bin of the distance of each point of a mesh in the cell from the origin.  [points]"""
    points = np.indices(mesh).reshape(system.dim, -1).T
    fraction = points / mesh[0]
    nearest = fraction - np.round(fraction)
    distance = system.box * np.linalg.norm(nearest, axis=1)
    # the last bin is wider than the others: it takes all that is farther
    last = len(grid.share) - 1
    number = distance / grid.edges[1]
    return np.minimum(number, last).astype(int)


def _bin_means(values, bins, count):
    total_of_bin = np.bincount(bins, values, count)
    points = np.bincount(bins, minlength=count)
    return total_of_bin / points
