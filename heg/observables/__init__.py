"""What a trained density matrix says of the gas.

Read `thermodynamics` first, then `structure` and `momentum`; `second_order` goes beyond the
variational bound. Files and figures do not belong here.
"""
