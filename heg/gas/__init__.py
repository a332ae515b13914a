"""The homogeneous electron gas by formulas: no network and no sample.

Read `system` first, then `plane_waves`, `coulomb`, `ideal` and `first_order` for the cell;
`ideal_infinite`, `rpa` and `size_correction` lead from it to the infinite gas.  Nothing here may
depend on a model of the density matrix.
"""
