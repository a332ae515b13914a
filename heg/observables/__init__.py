"""Observables of a trained density matrix, with errors.

Read `thermodynamics` first, then `structure`, `momentum` and `quasiparticles`; `programs` compiles
them, `evaluation` collects the results, and `second_order` goes beyond the variational bound.
Files and figures do not belong here.
"""
