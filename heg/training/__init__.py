"""One step of the minimisation of the free energy.

Read `free_energy` first, then `control_variates`, `natural_gradient`, `state` and `step`;
`convergence` and `verdict` judge the result, `cost` estimates time and memory beforehand. Files and
loops over steps do not belong here.
"""
