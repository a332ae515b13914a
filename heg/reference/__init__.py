"""Numbers for comparison: published fits, and full diagonalisation of a few electrons.

Read `published` first, then `determinants` and `diagonalisation`.
Nothing here may use the variational model that it judges.
"""
