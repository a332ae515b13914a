"""The density matrix rho = sum_K p(K) |Psi_K><Psi_K| as functions of parameters.

Read `occupations` for p(K), then `pairs`, `pair_network`, `inverse`, `flow` and `wavefunction` for
Psi_K, then `kinetic` and `local_energy`; `density_matrix` puts them together, and `monotone`
proves where a flow is one to one.  Sampling and training do not belong here.
"""
