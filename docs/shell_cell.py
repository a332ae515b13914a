"""The cell magic %%shell of the tutorials.

It runs bash and shows the whole output once it has ended; a failure is an error of the cell.
"""

import os
import subprocess

COLOURS = ("FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE")  # notebooks ask for them


def shell(line, cell):
    """Runs a cell in bash, without colours."""
    plain = {name: value for name, value in os.environ.items() if name not in COLOURS}
    done = subprocess.run(
        ["bash", "-c", cell],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=plain,
    )
    print(done.stdout)
    done.check_returncode()


def load_ipython_extension(ipython):
    """Registers the magic: called by %load_ext."""
    ipython.register_magic_function(shell, "cell")
