#!/usr/bin/env bash
# Set up, then lint, types and all tests: the same by hand and in CI. Arguments go to pytest.
#   ./runTests.sh
#   ./runTests.sh tests/saliency -k published
. "$(dirname "${BASH_SOURCE[0]}")/setUp.sh" requirements-tests.txt

echo "== lint: ruff"
ruff check .
ruff format --check --quiet .
echo "== types: mypy"
mypy
echo "== tests: pytest"
python -m pytest "$@"
