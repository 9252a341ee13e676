"""Commands of the README and of docs/ run as written: in a copy of the project, in order, with a smaller demo.

A block that starts with a comment `<!-- not run: REASON -->` in the line above is left out.
"""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.reporting.browser import running_chromium

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README, CODE = (path.read_text(encoding="utf-8") for path in (ROOT / "README.md", ROOT / "docs/code.md"))
FIRST_SCREEN = {"width": 1012, "height": 900}
"""Pixels: the width of GitHub's column, and what a laptop shows of it."""

GITHUB = """
body { margin: 0 auto; width: 1012px; font: 16px/1.5 Helvetica, Arial, sans-serif }
h1 { font-size: 2em; line-height: 1.25; margin: 0 0 16px; padding-bottom: .3em; border-bottom: 1px solid }
p, pre, table { margin: 0 0 16px } img { max-width: 100% }
pre { padding: 16px; font: 13.6px/1.45 monospace; background: #eee }
"""
REASONS = {"needs CheXpert", "needs the films", "needs the internet", "needs GPUs", "needs conda", "runs this test"}
SMALL = {"PATIENTS": "40", "PAIRS": "3", "EPOCHS": "1", "STEPS_PER_PATCH": "2", "RESAMPLES": "200"}

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>.*?) -->\n)?^```bash\n(?P<commands>.*?)^```", re.DOTALL | re.MULTILINE
)


def blocks() -> list[tuple[str, str]]:
    """(commands, reason not to run them or "") of every block, in order."""
    texts = [path.read_text(encoding="utf-8") for path in PAGES]
    return [(match["commands"], match["reason"] or "") for text in texts for match in _BLOCK.finditer(text)]


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """What a clone would hold, uncommitted changes included, and this environment as its `.venv`."""
    folder = tmp_path_factory.mktemp("clone") / "MedicalPatchNet"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def test_blocks_that_are_not_run_say_why():
    found = blocks()
    assert {reason for _, reason in found} - {""} <= REASONS
    assert sum(not reason for _, reason in found) >= 3
    assert sum(path.read_text(encoding="utf-8").count("```bash") for path in PAGES) == len(found)


def test_every_command_runs_as_written(copy):
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH")}
    for commands, reason in blocks():
        if not reason:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", commands],
                cwd=copy, env=environment | SMALL, capture_output=True, text=True, timeout=900,
            )  # fmt: skip
            assert done.returncode == 0, f"{commands}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    made = {path.relative_to(copy / "demo").as_posix() for path in (copy / "demo").rglob("*") if path.is_file()}
    assert {"results/report/table1.md", "results/report/report.html", "predicted/predictions.csv"} <= made


def tree_files() -> set[str]:
    """Paths of the files that the tree of docs/code.md names."""
    tree = CODE.split("# What lies where", 1)[1].split("```text", 1)[1].split("```", 1)[0]
    folders: list[str] = []
    found = set()
    for line in filter(str.strip, tree.splitlines()):
        depth = (len(line) - len(line.lstrip())) // 2
        names = re.findall(r"[\w./-]+\.(?:py|sh|txt|yml)\b", line) if line.count(".py") > 1 else line.split()[:1]
        folders = folders[:depth]
        if names[0].endswith("/"):
            folders.append(names[0])
        else:
            found |= {"".join(folders) + name for name in names}
    return found


def test_the_file_tree_names_every_module_and_nothing_else():
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, check=True, capture_output=True, text=True)
    apart = ("tests/", "benchmarks/")
    modules = {
        name for name in listed.stdout.split() if not name.startswith(apart) and not name.endswith("__init__.py")
    }
    named = tree_files()
    assert {name for name in named if not (ROOT / name).exists()} == set()
    assert modules - named == set()


def test_the_python_of_the_readme_runs(copy):
    block = README.split("```python", 1)[1].split("```", 1)[0]
    done = subprocess.run([sys.executable, "-c", block], cwd=copy, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    probability, shape = done.stdout.splitlines()
    assert 0 <= float(probability) <= 1 and shape == "(16, 14)"
    assert (copy / "demo/effusion.png").is_file()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "savedModels/README.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8"))
    assert {link for link in links if not (page.parent / link).exists()} == set()


def test_the_first_screen_holds_picture_commands_and_python(tmp_path):
    markdown = pytest.importorskip("markdown_it").MarkdownIt()
    first = markdown.render(README[: README.index("\n## ")]).replace('src="', f'src="{ROOT.as_uri()}/')
    page_file = tmp_path / "first.html"
    page_file.write_text(f"<!DOCTYPE html><style>{GITHUB}</style>{first}", encoding="utf-8")
    with ThreadPoolExecutor(1) as apart:  # other tests may keep a browser open, and a thread can have but one
        width, picture, height = apart.submit(_measured, page_file).result()
    assert width > 0 and picture <= 350
    assert height <= FIRST_SCREEN["height"]


def _measured(page_file: Path) -> tuple[float, float, float]:
    """Natural width and shown height of the page's first picture, and the height of the page."""
    with running_chromium() as browser:
        page = browser.new_page(viewport=FIRST_SCREEN)
        page.goto(page_file.as_uri())
        width, picture = page.evaluate("(([image]) => [image.naturalWidth, image.height])(document.images)")
        return width, picture, page.evaluate("document.documentElement.scrollHeight")
