"""A run directory, and the loops that fill it.

Read `run_directory` first, then `solve`, which calls `warm_start`, `trouble`, `frozen_samples` and
`summary`, and `measure`, which calls `block_means` and `second_order_rows`; `files`, `hdf5` and
`text_files` are below them.  Nothing here prints or draws figures.
"""
