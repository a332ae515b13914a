"""Double excitations beside the Hamiltonian of heg.reference.determinants and beside determinants
themselves."""

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
    state = np.concatenate([np.sort(rng.choice(7, count, replace=False)) for count in gas.spins])
    return DoublesOf(gas, orbitals, largest), state


def name(n):
    return tuple(map(tuple, n))


def coulomb(doubles_of):
    """The operator U alone."""
    weights = np.zeros(count_operators(doubles_of.system))
    weights[0] = 1.0
    return pair_elements(doubles_of.system, weights, doubles_of.strength)


@each_gas
def test_elements_and_energies_are_those_of_the_hamiltonian(gas):
    doubles_of, state = doubles_and_state(gas)
    doubles, n = doubles_of(state), doubles_of.n[state]
    elements = doubles.elements(coulomb(doubles_of))
    unit = (2 * np.pi / gas.box) ** 2 / 2
    block = block_of(gas, n.sum(axis=0), {2: 20, 3: 10}[gas.dim] * unit)
    ordered = [doubles_of.ordered(vectors) for vectors in block.n]
    place = {name(vectors): number for number, (vectors, _) in enumerate(ordered)}
    sign = np.array([one for _, one in ordered])
    own, own_sign = doubles_of.ordered(n)
    row = place[name(own)]
    seen = 0
    for double in np.flatnonzero(doubles.allowed):
        other, turned = doubles_of.ordered(doubles_of.excited(n, double))
        column = place.get(name(other))
        if column is None:
            continue
        seen += 1
        expected = block.hamiltonian[row, column] * sign[row] * own_sign * sign[column] * turned
        np.testing.assert_allclose(elements[double], expected, atol=1e-14)
        raised = block.hamiltonian[column, column] - block.hamiltonian[row, row]
        np.testing.assert_allclose(doubles.ideal[double] + doubles.fock[double], raised, atol=1e-13)
    assert seen > 40


@each_gas
def test_every_determinant_that_the_interaction_reaches_is_there_once(gas):
    doubles_of, state = doubles_and_state(gas, largest=49)
    doubles, n = doubles_of(state), doubles_of.n[state]
    found = [
        name(doubles_of.ordered(doubles_of.excited(n, d))[0])
        for d in np.flatnonzero(doubles.allowed)
    ]
    assert len(found) == len(set(found))
    unit = (2 * np.pi / gas.box) ** 2 / 2
    block = block_of(gas, n.sum(axis=0), {2: 20, 3: 10}[gas.dim] * unit)
    names = [name(doubles_of.ordered(vectors)[0]) for vectors in block.n]
    row = names.index(name(doubles_of.ordered(n)[0]))
    coupled = np.flatnonzero(np.abs(block.hamiltonian[row]) > 1e-12)
    missing = {names[column] for column in coupled} - set(found)
    assert missing == {names[row]}


@each_gas
def test_ratios_are_those_of_determinants(gas):
    doubles_of, state = doubles_and_state(gas)
    unit_gas = gas.of_unit_density
    orbitals = wide_orbitals(unit_gas, choose_cutoff(unit_gas, 1e-3).orbitals, LARGEST)
    z = gas.box * np.random.default_rng(1).uniform(size=(gas.electrons, gas.dim))
    ratios = np.asarray(make_ratios(gas, orbitals.at_density(gas.rs), LARGEST)(z, state))
    n = doubles_of.n[state]
    assert ratios.shape == (count_doubles(gas, LARGEST),)

    def slater(vectors):
        k = 2 * np.pi / gas.box * vectors
        return np.prod([np.linalg.det(np.exp(1j * z[part] @ k[part].T)) for part in gas.parts])

    for double in np.flatnonzero(doubles_of(state).allowed)[::17]:
        expected = slater(doubles_of.excited(n, double)) / slater(n)
        np.testing.assert_allclose(ratios[double], expected, rtol=1e-10, atol=1e-12)
