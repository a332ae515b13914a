"""Double excitations beside the Hamiltonian of heg.reference.determinants and beside determinants
themselves."""

import jax
import numpy as np
import pytest

from heg.gas.ideal import choose_cutoff
from heg.gas.system import System
from heg.observables.second_order.amplitudes import wide_orbitals
from heg.observables.second_order.doubles import DoublesOf, count_doubles, make_ratios
from heg.observables.second_order.pair_operators import count_operators, pair_elements
from heg.reference.determinants import block_of

LARGEST = 9
GASES = {
    "2D 2u2d": System(2, 2, 2, 2.0, 0.5, (0.1, 0.2)),
    "3D 3u": System(3, 0, 3, 4.0, 1.0),
    "3D 3u1d": System(3, 1, 3, 4.0, 0.5, (0.1, 0.2, 0.3)),
}
each_gas = pytest.mark.parametrize("gas", GASES.values(), ids=GASES)


def doubles_and_state(gas, largest=LARGEST):
    orbitals = choose_cutoff(gas, 1e-3).orbitals
    rng = np.random.default_rng(0)
    spins = [np.sort(rng.choice(7, count, replace=False)) for count in gas.spins]
    return DoublesOf(gas, orbitals, largest), np.concatenate(spins)


def name(n):
    """A determinant as a key of dictionaries."""
    return tuple(map(tuple, n))


def block_of_state(gas, n):
    """Hamiltonian among the determinants of the momentum of a state, up to a kinetic energy."""
    unit = (2 * np.pi / gas.box) ** 2 / 2
    highest = {2: 20, 3: 10}[gas.dim]
    return block_of(gas, n.sum(axis=0), highest * unit)


def coulomb(doubles_of):
    """The operator U alone."""
    weights = np.zeros(count_operators(doubles_of.system))
    weights[0] = 1.0
    return pair_elements(doubles_of.system, weights, doubles_of.strength)


def ordered_hamiltonian(doubles_of, block):
    """The Hamiltonian, the index of each determinant in order, and the sign that ordering takes."""
    index = {}
    signs = []
    for number, vectors in enumerate(block.n):
        ordered, sign = doubles_of.ordered(vectors)
        index[name(ordered)] = number
        signs.append(sign)
    return block.hamiltonian, index, signs


@each_gas
def test_elements_and_energies_are_those_of_the_hamiltonian(gas):
    doubles_of, state = doubles_and_state(gas)
    doubles = doubles_of(state)
    n = doubles_of.n[state]
    elements = doubles.elements(coulomb(doubles_of))
    gaps = doubles.ideal + doubles.fock

    hamiltonian, index, sign = ordered_hamiltonian(doubles_of, block_of_state(gas, n))
    own, own_sign = doubles_of.ordered(n)
    row = index[name(own)]
    seen = 0
    for double in np.flatnonzero(doubles.allowed):
        other, other_sign = doubles_of.ordered(doubles_of.excited(n, double))
        column = index.get(name(other))
        if column is None:
            continue  # above the highest kinetic energy of the block
        seen += 1
        signs = own_sign * sign[row] * sign[column] * other_sign
        np.testing.assert_allclose(elements[double], signs * hamiltonian[row, column], atol=1e-14)
        gap = hamiltonian[column, column] - hamiltonian[row, row]
        np.testing.assert_allclose(gaps[double], gap, atol=1e-13)
    assert seen > 40


@each_gas
def test_every_determinant_that_the_interaction_reaches_is_there_once(gas):
    doubles_of, state = doubles_and_state(gas, largest=49)
    n = doubles_of.n[state]

    def ordered_name(vectors):
        ordered, _ = doubles_of.ordered(vectors)
        return name(ordered)

    listed = []
    for double in np.flatnonzero(doubles_of(state).allowed):
        listed.append(ordered_name(doubles_of.excited(n, double)))
    assert len(listed) == len(set(listed))

    block = block_of_state(gas, n)
    names = [ordered_name(vectors) for vectors in block.n]
    row = names.index(ordered_name(n))
    coupled = np.flatnonzero(np.abs(block.hamiltonian[row]) > 1e-12)
    missing = {names[column] for column in coupled} - set(listed)
    assert missing == {names[row]}


@each_gas
def test_ratios_are_those_of_determinants(gas):
    doubles_of, state = doubles_and_state(gas)
    unit_gas = gas.of_unit_density
    orbitals = wide_orbitals(unit_gas, choose_cutoff(unit_gas, 1e-3).orbitals, LARGEST)
    z = gas.box * np.random.default_rng(1).uniform(size=(gas.electrons, gas.dim))
    ratios_at = jax.jit(make_ratios(gas, orbitals.at_density(gas.rs), LARGEST))
    ratios = np.asarray(ratios_at(z, state))
    n = doubles_of.n[state]
    assert ratios.shape == (count_doubles(gas, LARGEST),)

    def slater(vectors):
        k = 2 * np.pi / gas.box * vectors
        matrices = [np.exp(1j * z[part] @ k[part].T) for part in gas.parts]
        return np.prod([np.linalg.det(matrix) for matrix in matrices])

    # a sample of the doubles, as determinants are slow one by one
    for double in np.flatnonzero(doubles_of(state).allowed)[::17]:
        expected = slater(doubles_of.excited(n, double)) / slater(n)
        np.testing.assert_allclose(ratios[double], expected, rtol=1e-10, atol=1e-12)
