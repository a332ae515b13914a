"""The command line of heg-doctor."""

import os
from typing import NoReturn

import jax

from heg.cli import diagnostics as examination
from heg.cli.common import FAILED, Common, CommonFlags, command, new_app, run_app
from heg.parallel import processes
from heg.training.cost import product_rate

DOCTOR = "What a run would find here: software, processes, devices, speed, known trouble.  Also under mpirun."


def doctor(arguments: list[str] | None = None) -> NoReturn:
    """heg-doctor: what a run would find here."""
    command("heg-doctor", _parse_doctor, lambda asked: _examine(), arguments)


def _parse_doctor(arguments):
    app = new_app("heg-doctor", DOCTOR)
    app.default(_flags)
    return run_app(app, arguments)


def _flags(*, common: CommonFlags = Common()):
    return True


def _examine():
    found, places = examination.versions(), processes.gathered(examination.place())
    print("software    " + ", ".join(f"{name} {version}" for name, version in found.items()))
    print(f"launcher    {processes.launcher()}")
    for place in places:
        where = f"process {place.process} on {place.host}, {place.cores} cores, memory in GiB: {place.memory}"
        print(f"rank {place.rank:<7}{where}; devices {' '.join(place.devices)}")
    speed = product_rate() / 1e9
    print(
        f"speed       {speed:.1f} GFlop/s in double precision, products of matrices on all devices"
    )
    collective = examination.seconds_of_collective()
    print(
        f"collective  1 MiB from each of {jax.device_count()} devices to all: {1e3 * collective:.2f} ms"
    )
    step = examination.seconds_of_step()
    print(f"small step  {step:.3f} s: 64 samples of 7 electrons in 3D, default model")
    of_all = processes.gathered(examination.findings(found, os.environ, len(places)))
    findings = list(dict.fromkeys(finding for of_one in of_all for finding in of_one))
    for finding in findings:
        print(f"Trouble: {finding.what}. Remedy: {finding.remedy}.")
    print("Trouble was found." if findings else "No known trouble.")
    result = {
        "software": found,
        "launcher": processes.launcher(),
        "processes": [place._asdict() for place in places],
        "speed_gflops": speed,
        "collective_seconds": collective,
        "small_step_seconds": step,
        "trouble": [finding._asdict() for finding in findings],
    }
    return FAILED if findings else 0, result
