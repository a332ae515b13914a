"""The cell magic %%shell of the tutorials: bash, its output shown whole once it has ended, an error where it fails."""

import os
import subprocess


def shell(line, cell):
    """Runs a cell in bash, without the colours that notebooks ask for."""
    plain = {
        name: value
        for name, value in os.environ.items()
        if name not in ("FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE")
    }
    done = subprocess.run(
        ["bash", "-c", cell], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=plain
    )
    print(done.stdout)
    done.check_returncode()


def load_ipython_extension(ipython):
    """What %load_ext calls."""
    ipython.register_magic_function(shell, "cell")
