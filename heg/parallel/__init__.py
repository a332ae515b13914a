"""Processes and devices, and how they share the walkers.

Read `processes` first, which alone knows MPI, then `devices` and `compilation`.
No physics belongs here.
"""
