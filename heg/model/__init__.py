"""The density matrix rho = sum_K p(K) |Psi_K><Psi_K| as functions of parameters.

Read `occupations` for p(K), then `pairs`, `pair_network`, `inverse`, `flow` and `wavefunction` for
Psi_K, then `kinetic` and `local_energy`. Sampling and training do not belong here.
"""
