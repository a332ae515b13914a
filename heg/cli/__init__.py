"""What a person types and sees.

Read `common` first, then `solve`, `measure`, `eos` and `doctor`.
Nothing here computes a result.
"""
