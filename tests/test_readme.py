"""Commands of the README, docs/ and savedModels/README.md run as written, in copies of the project after its demo.

A block below a comment `<!-- on stand-ins: REASON -->` runs where tests/stand_ins.py has laid what the demo lacks; one
below `<!-- not run: REASON -->` is left out.
"""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.clone import ROOT, SHORT_DEMO, copy_of, run
from tests.reporting.browser import running_chromium

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "savedModels/README.md"]
README, CODE = (path.read_text(encoding="utf-8") for path in (ROOT / "README.md", ROOT / "docs/code.md"))
FIRST_SCREEN = {"width": 1012, "height": 900}
"""Pixels: the width of GitHub's column, and what a laptop shows of it."""

GITHUB = """
body { margin: 0 auto; width: 1012px; font: 16px/1.5 Helvetica, Arial, sans-serif }
h1 { font-size: 2em; line-height: 1.25; margin: 0 0 16px; padding-bottom: .3em; border-bottom: 1px solid }
p, pre, table { margin: 0 0 16px } img { max-width: 100% }
pre { padding: 16px; font: 13.6px/1.45 monospace; background: #eee }
"""
REASONS = {"needs CheXpert", "needs the films", "needs the internet", "runs this test"}
DEMO = "./runDemo.sh"
"""The block that the others follow; it has run in `demo_clone`, with fewer films and one epoch."""

_BLOCK = re.compile(
    r"(?:^<!-- (?P<how>not run|on stand-ins): (?P<reason>.*?) -->\n)?^```bash\n(?P<commands>.*?)^```",
    re.DOTALL | re.MULTILINE,
)


def blocks(page: Path) -> list[re.Match[str]]:
    return list(_BLOCK.finditer(page.read_text(encoding="utf-8")))


def commands(how: str | None) -> list:
    """The commands of every block that is marked so, in order."""
    found = [(page, number, block) for page in PAGES for number, block in enumerate(blocks(page), 1)]
    return [
        pytest.param(block["commands"], id=f"{page.relative_to(ROOT)}-{number}")
        for page, number, block in found
        if block["how"] == how and block["commands"].split("#")[0].strip() != DEMO
    ]


@pytest.fixture(scope="module")
def copy(demo_clone, tmp_path_factory) -> Path:
    return copy_of(demo_clone, tmp_path_factory.mktemp("readme") / "MedicalPatchNet")


def test_blocks_that_are_not_run_say_why():
    found = [block for page in PAGES for block in blocks(page)]
    assert {block["reason"] for block in found} - {None} <= REASONS
    assert sum(path.read_text(encoding="utf-8").count("```bash") for path in PAGES) == len(found)
    assert [block["how"] for block in blocks(PAGES[0]) if block["commands"].startswith(f"{DEMO} ")] == [None]
    assert f"`{SHORT_DEMO}`" in README


@pytest.mark.parametrize("block", commands(None))
def test_a_block_runs_as_written(block, copy):
    run(block, copy)


@pytest.mark.parametrize("block", commands("on stand-ins"))
def test_a_block_runs_as_written_on_stand_ins(block, stand_ins):
    run(block, stand_ins)


def test_the_demo_made_what_the_readme_says(demo_clone):
    made = {path.relative_to(demo_clone / "demo").as_posix() for path in (demo_clone / "demo").rglob("*.*")}
    assert {"results/report/table1.md", "results/report/report.html", "savedModels/MedicalPatchNet/config.json"} <= made


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


def test_the_python_of_the_weights_page_runs_and_pushes_to_the_hub(stand_ins, hub):
    block = PAGES[-1].read_text(encoding="utf-8").split("```python", 1)[1].split("```", 1)[0]
    given = "import torch\nimages = torch.rand(2, 1, 256, 256)\n"
    (stand_ins / "weights_page.py").write_text(f"{given}{block}\nprint(tuple(contributions.shape))\n", encoding="utf-8")
    assert run("HF_TOKEN=x python weights_page.py", stand_ins).stdout.splitlines()[-1] == "(2, 16, 14)"
    assert {"config.json", "model.safetensors", "README.md", "reference.npz"} <= set(hub.repos["owner/repo"]["main"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
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
