# Sourced by the run*.sh scripts, with the requirements file as argument: goes to the project's folder, and makes and
# fills .venv when no environment is active. An environment of yours gets what is missing or too old, .venv the very
# versions that were tested (constraints.txt). uv installs where it is there, else pip.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
requirements=$1 versions=()

if [ -z "${VIRTUAL_ENV:-}" ] && { [ -z "${CONDA_PREFIX:-}" ] || [ "${CONDA_DEFAULT_ENV:-}" = base ]; }; then
  if [ ! -x .venv/bin/python ]; then
    echo "== set-up: making .venv (no environment is active)"
    "${PYTHON:-python3}" -m venv .venv
  fi
  . .venv/bin/activate
  versions=(-c constraints.txt)
fi

python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "error: Python 3.11 or newer is needed, $(python --version) was found; set PYTHON=/path/to/python3.11" >&2
  exit 2
}

# The stamp says for which requirements this environment was filled.
stamp=$(python -c 'import sys; print(sys.prefix)')/.medicalpatchnet-$requirements
wanted=$(cat requirements*.txt constraints.txt | cksum)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  echo "== set-up: installing what is missing (the first time several GB with torch, some minutes)"
  if command -v uv >/dev/null; then
    uv pip install --quiet -r "$requirements" "${versions[@]}"
  else
    python -m pip install --quiet --disable-pip-version-check -r "$requirements" "${versions[@]}"
  fi
  echo "$wanted" 2>/dev/null >"$stamp" || true # an environment that only others may write to is asked again each time
fi
