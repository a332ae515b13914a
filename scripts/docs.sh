#!/usr/bin/env bash
# Builds the documentation site in site/html, running its tutorials; any warning is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh plot,docs
export XLA_FLAGS=${XLA_FLAGS:---xla_backend_optimization_level=1}  # tutorials compile much and compute little
sphinx-build -q -j 2 -W --keep-going docs site/html
python scripts/check_site.py site/html  # formulas and styles need no network
python scripts/look_at_site.py site/html  # in a Chromium, where there is one
echo "Site: site/html/index.html"
