"""Samples (K, x) of the density matrix.

Read `exact_draws` and `chains` first, then `batch`; `folds` looks for places that samples avoid.
No estimator belongs here.
"""
