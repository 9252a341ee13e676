#!/usr/bin/env bash
# Set up, then lint, types and all tests: the same by hand and in CI. Arguments go to pytest.
#   ./runTests.sh
#   ./runTests.sh tests/saliency -k published
if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then # before anything is installed
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 0
fi
. "$(dirname "${BASH_SOURCE[0]}")/setUp.sh" requirements-tests.txt

echo "== lint: ruff"
ruff check .
ruff format --check --quiet .
echo "== types: mypy"
mypy
echo "== tests: pytest"
python -m pytest "$@"
