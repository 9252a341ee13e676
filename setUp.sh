# Sourced by the run*.sh scripts, with the requirements file as argument: goes to the project's folder, and makes and
# fills .venv when no environment is active. Installs only when something is missing or too old.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
requirements=$1

if [ -z "${VIRTUAL_ENV:-}" ] && { [ -z "${CONDA_PREFIX:-}" ] || [ "${CONDA_DEFAULT_ENV:-}" = base ]; }; then
  if [ ! -x .venv/bin/python ]; then
    echo "== set-up: making .venv (no environment is active)"
    "${PYTHON:-python3}" -m venv .venv
  fi
  . .venv/bin/activate
fi

python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "error: Python 3.11 or newer is needed, $(python --version) was found; set PYTHON=/path/to/python3.11" >&2
  exit 2
}

missing_requirements() {
  python - "$1" <<'PYTHON'
import re, sys
from importlib import metadata

def requirements(name):
    for line in open(name, encoding="utf-8"):
        if line.startswith("-r "):
            yield from requirements(line[3:].strip())
        elif match := re.match(r"([\w.-]+)>=([\d.]+)", line):
            yield match.groups()

def numbers(version):
    return [int(part) for part in re.findall(r"\d+", version.split("+")[0])]

for name, least in requirements(sys.argv[1]):
    try:
        if numbers(metadata.version(name)) < numbers(least):
            print(name)
    except metadata.PackageNotFoundError:
        print(name)
PYTHON
}

missing=$(missing_requirements "$requirements" | tr '\n' ' ')
if [ -n "$missing" ]; then
  echo "== set-up: installing ${missing}(several GB with torch, some minutes)"
  python -m pip install --quiet --disable-pip-version-check -r "$requirements" -c constraints.txt
fi
