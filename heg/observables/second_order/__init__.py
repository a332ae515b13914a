"""The free energy to second order about the trained density matrix.

Read `perturbation` first, then `doubles`, `pair_operators` and `amplitudes`; `contributions` puts
them together. Reading and writing files belongs to heg.runs.
"""
