#!/usr/bin/env bash
# The one gate: lint, tests and, with the default Python, the documentation.  PYTHON=python3.12 bash scripts/test.sh uses
# another Python, in its own environment.  Arguments go to pytest; the documentation is then left out.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh mpi,plot,test
if [ -z "${PYTHON:-}" ]; then  # types are checked against the oldest supported JAX
  ruff check .
  ruff format --check .
  lint-imports
  mypy heg
fi
pytest -n 2 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder --durations 10 "$@"
if [ $# -eq 0 ] && [ -z "${PYTHON:-}" ]; then bash scripts/docs.sh; fi
