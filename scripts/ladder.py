"""The gases of the validation ladder and the commands that run them."""

import itertools
from pathlib import Path
from typing import NamedTuple

from heg.gas.system import System

STEPS = 150
SAMPLES = 32768
TWIST = (0.1, 0.2, 0.3)


class Rung(NamedTuple):
    """One run of the ladder."""

    system: System
    flow: bool = True
    steps: int = STEPS
    samples: int = SAMPLES

    @property
    def name(self) -> str:
        """As in docs/validation.json."""
        gas = self.system
        angles = " ".join(f"{angle:g}" for angle in gas.twist) if any(gas.twist) else "0"
        flow = "flow" if self.flow else "identity"
        return f"{gas.dim}D {gas.label} rs {gas.rs:g} Theta {gas.theta:g} twist {angles} {flow}"

    def command(self, run_dir: Path) -> list[str]:
        """The command that runs it."""
        gas = self.system
        polarization = f"{gas.n_up - gas.n_down}/{gas.electrons}"
        twist = " ".join(f"{angle:g}" for angle in gas.twist)
        words = (
            f"heg-solve --electrons {gas.electrons} --dim {gas.dim} --polarization {polarization} "
            f"--rs {gas.rs:g} --theta {gas.theta:g} --twist {twist} "
            f"--steps {self.steps} --samples {self.samples}"
        )
        words += "" if self.flow else " --flow-layers 0"
        return [*words.split(), "--run-dir", str(run_dir / self.name.replace(" ", "-"))]

    @property
    def gas(self) -> str:
        """The name without the kind of flow."""
        return self.name.rsplit(" ", 1)[0]

    @property
    def electrons(self) -> str:
        """Electrons of each spin, as in 7↑7↓."""
        return self.system.label.replace("u", "↑").replace("d", "↓")

    @property
    def title(self) -> str:
        """The gas as the pages name it."""
        gas = self.system
        title = f"{gas.dim}D {self.electrons}, r_s {gas.rs:g}, Θ {gas.theta:g}"
        if any(gas.twist):
            title += ", twist " + " ".join(f"{angle:g}" for angle in gas.twist)
        return title


def small_rungs() -> list[Rung]:
    """Two to four electrons, those in front that say most."""
    grid = itertools.product(
        (0.5, 0.1, 1.0),  # Theta
        (4.0, 10.0, 1.0),  # r_s
        (False, True),  # twisted
        (3, 2),  # dimensions
        ((2, 0), (3, 0), (1, 1), (2, 2)),  # electrons up and down
        (True, False),  # flow
    )
    rungs = []
    for theta, rs, twisted, dim, spins, flow in grid:
        if theta < 1 or sum(spins) < 4:
            twist = TWIST[:dim] if twisted else (0.0,) * dim
            rungs.append(Rung(System(*spins, dim, rs, theta, twist), flow))
    return rungs


LARGE = (
    Rung(System(13, 0, 2, 10.0, 0.15, (0.25, 0.25)), steps=300),
    Rung(System(7, 7, 3, 2.0, 0.25, (0.0, 0.0, 0.0)), steps=300),
    Rung(System(7, 0, 3, 1.0, 1.0, (0.0, 0.0, 0.0)), steps=300),
    *(
        Rung(System(7, 7, 3, rs, 0.02, (0.0, 0.0, 0.0)), steps=300, samples=131072)
        for rs in (5.0, 1.0, 2.0, 10.0)
    ),
    *(Rung(System(29, 0, 2, rs, 0.15, (0.25, 0.25)), steps=600) for rs in (10.0, 5.0, 3.0, 1.0)),
)
