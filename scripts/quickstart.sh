#!/usr/bin/env bash
# From a clone to a free energy: makes .venv, installs, runs the main job and prints its table and figure.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh mpi,plot
heg-solve --electrons 13 --dim 2 --polarization 1 --rs 10 --theta 0.15 --twist 0.25 0.25 \
  --steps "${STEPS:-40}" --samples 2048 --run-dir runs/quickstart
