"""A run directory, and the loops that fill it.

Read `run_directory` first, then `solve` and `measure`; `files`, `hdf5` and `text_files` are below
them.  Nothing here prints or draws figures.
"""
