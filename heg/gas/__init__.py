"""The homogeneous electron gas, exactly: no network and no sample.

Read `system` first, then `plane_waves`, `coulomb` and `ideal`; the rest leads from the cell to the
infinite gas.  Nothing here may depend on a model of the density matrix.
"""
