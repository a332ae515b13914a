"""Commands: what a person types and sees.

Read `common` first, then `solve`, `measure`, `eos`, `list`, `doctor` and its `diagnostics`.
Nothing here computes a result.
"""
