"""The free energy to second order about the trained density matrix.

Read `perturbation` first, then `doubles`, `pair_operators` and `amplitudes`; `contributions`
samples one state with them, at the energies of `calibration`.  `degenerate`, `third_order`
and `relaxation` add what second order leaves out, and `corrected` has the results.  Reading and
writing files belongs to heg.runs.
"""
