"""The rules of the house (DESIGN, section 1): imports run one way, in no circle, and labels are data."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from cxr.labels import CHEXPERT

ROOT = Path(__file__).resolve().parents[1]

MAY_IMPORT = {"cxr": set()} | dict.fromkeys(
    ("models", "training", "saliency", "evaluation", "reporting", "preprocessing"), {"cxr"}
)
SCRIPTS = {path.stem for path in ROOT.glob("*.py")} | {"benchmarks", "tests"}
OURS = set(MAY_IMPORT) | SCRIPTS


def imported_modules(path: Path) -> set[str]:
    """Full names of the project's own modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.partition(".")[0] in OURS}


def forbidden(folder: str, path: Path) -> set[str]:
    """Parts of the project that a file of `folder` imports and must not. Scripts of preprocessing/ may use cli."""
    allowed = MAY_IMPORT[folder] | {folder}
    if path.parent == ROOT / "preprocessing":
        allowed = allowed | {"cli"}
    return {name.partition(".")[0] for name in imported_modules(path)} - allowed


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_only_what_lies_below_it(folder):
    files = list((ROOT / folder).rglob("*.py"))
    assert files, f"{folder}/ is gone; update the rule"
    broken = {str(path.relative_to(ROOT)): names for path in files if (names := forbidden(folder, path))}
    assert not broken


def test_the_rule_sees_a_forbidden_import(tmp_path):
    offender = tmp_path / "metrics.py"
    offender.write_text("def f():\n    from models.patch_net import MedicalPatchNet\n    import saliency.cam\n")
    assert forbidden("evaluation", offender) == {"models", "saliency"}


def test_no_circle_of_imports():
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for folder in MAY_IMPORT
        for path in (ROOT / folder).rglob("*.py")
    }
    imports = {name: imported_modules(path) & set(files) - {name} for name, path in files.items()}
    assert circle(imports) == []


def circle(imports: dict[str, set[str]]) -> list[str]:
    """The modules of a circle, in order; empty where there is none."""

    def search(name: str, way: list[str]) -> list[str]:
        if name in way:
            return way[way.index(name) :]
        if name in done:
            return []
        for other in sorted(imports.get(name, ())):
            if found := search(other, [*way, name]):
                return found
        done.add(name)
        return []

    done: set[str] = set()
    return next((found for name in sorted(imports) if (found := search(name, []))), [])


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


MAY_NAME_LABELS = (
    "cxr/labels.py",
    "cxr/mappings.json",
    "preprocessing/phantom",
    "preprocessing/sources",
    "reporting/paper",
)
"""Where label names of a data set may be written out. The rest of the project takes them from its data."""


def named_labels(path: Path) -> set[str]:
    """Names of CheXpert's labels that a file writes out, docstrings and help texts apart."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {text for text in _string_constants(tree) if text in CHEXPERT.names or text in CHEXPERT.tasks.values()}


def _string_constants(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_label_names_are_data():
    files = [path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] in OURS - {"tests", "benchmarks"}]
    files += list(ROOT.glob("*.py"))
    named = {
        str(path.relative_to(ROOT)): names
        for path in files
        if not path.relative_to(ROOT).as_posix().startswith(MAY_NAME_LABELS) and (names := named_labels(path))
    }
    assert not named


def test_a_written_out_label_is_found(tmp_path):
    offender = tmp_path / "figures.py"
    offender.write_text('SHOWN = ("Edema", "something else")\n')
    assert named_labels(offender) == {"Edema"}
