"""The command line of heg-doctor."""

import os
from typing import NoReturn

import jax

from heg.cli import diagnostics
from heg.cli.common import FAILED, Common, CommonFlags, command, new_app, run_app
from heg.parallel import processes
from heg.training.cost import product_rate

HELP = (
    "What a run would find here: software, processes, devices, speed, known trouble.  "
    "Also under mpirun."
)


def doctor(arguments: list[str] | None = None) -> NoReturn:
    """heg-doctor: what a run would find here."""
    command("heg-doctor", _parse, lambda asked: _examine(), arguments)


def _parse(arguments):
    app = new_app("heg-doctor", HELP)
    app.default(_flags)
    return run_app(app, arguments)


def _flags(*, common: CommonFlags = Common()):
    return True


def _examine():
    """Looks at software, processes and speed, prints a page; exit code and the same as a dict."""
    # every process looks at its own place, the first one prints
    software = diagnostics.versions()
    places = processes.gathered(diagnostics.place())
    _print_installation(software, places)
    speed = _measure_speed()
    trouble = _known_trouble(software, len(places))
    for finding in trouble:
        print(f"Trouble: {finding.what}. Remedy: {finding.remedy}.")
    print("Trouble was found." if trouble else "No known trouble.")
    result = {
        "software": software,
        "launcher": processes.launcher(),
        "processes": [place._asdict() for place in places],
        **speed,
        "trouble": [finding._asdict() for finding in trouble],
    }
    return FAILED if trouble else 0, result


def _print_installation(software, places):
    versions = ", ".join(f"{name} {version}" for name, version in software.items())
    print(f"software    {versions}")
    print(f"launcher    {processes.launcher()}")
    for place in places:
        print(
            f"rank {place.rank:<7}process {place.process} on {place.host}, {place.cores} cores, "
            f"memory in GiB: {place.memory}; devices {' '.join(place.devices)}"
        )


def _measure_speed():
    """Times products, the exchange of data and a small step, and prints each at once."""
    speed = product_rate() / 1e9
    print(
        f"speed       {speed:.1f} GFlop/s in double precision, products of matrices on all devices"
    )
    collective = diagnostics.seconds_of_collective()
    print(
        f"collective  1 MiB from each of {jax.device_count()} devices to all: "
        f"{1e3 * collective:.2f} ms"
    )
    step = diagnostics.seconds_of_step()
    print(f"small step  {step:.3f} s: 64 samples of 7 electrons in 3D, default model")
    return {
        "speed_gflops": speed,
        "collective_seconds": collective,
        "small_step_seconds": step,
    }


def _known_trouble(software, count):
    """Findings of all processes, each once."""
    # processes of one job may find different trouble
    own = diagnostics.findings(software, os.environ, count)
    return list(dict.fromkeys(finding for each in processes.gathered(own) for finding in each))
