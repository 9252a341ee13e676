"""Imports run one way (DESIGN, section 1)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

MAY_IMPORT = {
    "cxr": set(),
    "models": set(),
    "training": {"cxr"},
    "saliency": {"cxr"},
    "evaluation": {"cxr"},
    "reporting": {"cxr"},
}
SCRIPTS = {path.stem for path in ROOT.glob("*.py")} | {"benchmarks", "preprocessing", "tests"}
OURS = set(MAY_IMPORT) | SCRIPTS


def imported_parts(path: Path) -> set[str]:
    """The project's own top-level names that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").partition(".")[0])
    return names & OURS


def forbidden(package: str, path: Path) -> set[str]:
    return imported_parts(path) - MAY_IMPORT[package] - {package}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_lies_below_it(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files, f"{package}/ is gone; update the rule"
    broken = {str(path.relative_to(ROOT)): names for path in files if (names := forbidden(package, path))}
    assert not broken


def test_preprocessing_scripts_know_films_but_no_networks():
    for path in (ROOT / "preprocessing").glob("*.py"):
        assert imported_parts(path) <= {"cxr", "cli"}, path


def test_the_rule_sees_a_forbidden_import(tmp_path):
    offender = tmp_path / "metrics.py"
    offender.write_text("def f():\n    from models.patch_net import MedicalPatchNet\n    import saliency.cam\n")
    assert forbidden("evaluation", offender) == {"models", "saliency"}
