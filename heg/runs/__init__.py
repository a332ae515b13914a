"""A run directory, and the loops that fill it.

Read `run_directory` first, then `solve` and `measure`.
Nothing here prints or draws figures.
"""
