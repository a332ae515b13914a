# Sourced by the other scripts: makes the environment of one Python with the extras asked for, and puts it on PATH.
# PYTHON chooses the interpreter; each version has an environment of its own, .venv for the default one.
python=${PYTHON:-python3}
version=$("$python" -c 'import sys; assert sys.version_info >= (3, 11), "heg needs Python 3.11 or newer"; print("%d.%d" % sys.version_info[:2])')
venv=.venv
[ -z "${PYTHON:-}" ] || venv=.venv-$version
oldest=""
# the oldest supported JAX is tested with the oldest supported Python, the newest with all others
[ "$version" != 3.11 ] || oldest="jax==0.9.2 jaxlib==0.9.2"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
# shellcheck disable=SC2086
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$1]" $oldest
PATH=$PWD/$venv/bin:$PATH
