#!/usr/bin/env bash
# The one gate: lint and tests.  PYTHON=python3.12 bash scripts/test.sh uses another Python, in its own environment.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh mpi,plot,test
ruff check .
ruff format --check .
pytest -n 2 --dist loadfile "$@"
