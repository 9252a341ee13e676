"""Weights by name, against a hub on the loopback device: download once, resume, check, and say what is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from cxr.files import InputError
from models.checkpoint import build_model, load_model, save_model
from models.hub import resolve_weights
from models.patch_net import MedicalPatchNet
from models.weight_names import weights_name
from tests.hub_server import Hub, running_hub

ROOT = Path(__file__).resolve().parents[2]
TINY = {"patch_size": 32, "image_size": 64, "labels": ("A", "B")}
PUBLISHED = "hf://patrick-w/MedicalPatchNet"

RESOLVE = """
import json, sys
from cxr.files import InputError
from models.hub import resolve_weights
for spec in sys.argv[1:]:
    try:
        print(json.dumps(["ok", str(resolve_weights(spec))]))
    except InputError as error:
        print(json.dumps(["error", str(error)]))
"""


def run_python(hub: Hub, home: Path, code: str, *arguments: str, **environment: str) -> str:
    """Runs code in a process of its own: the hub's library reads its environment when it is imported."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=clean | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def resolve(hub: Hub, home: Path, *specs: str, **environment: str) -> dict[str, tuple[str, str]]:
    """Spec -> ("ok", path) or ("error", message), all in one fresh process."""
    hub.log.clear()
    lines = run_python(hub, home, RESOLVE, *specs, **environment).splitlines()
    return {spec: tuple(json.loads(line)) for spec, line in zip(specs, lines, strict=True)}


def asked_for_files(hub: Hub) -> list[tuple[str, str | None]]:
    return [
        (path.rpartition("/")[2], span) for method, path, span in hub.log if method == "GET" and "/resolve/" in path
    ]


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    torch.manual_seed(0)
    save_model(build_model("timm/test_efficientnet", **TINY), folder)
    return folder


@pytest.fixture(scope="module")
def hub(tiny_folder):
    """`me/tiny` holds a saved folder, the published repository .pt files, one of them behind a bad connection."""
    noise = np.random.default_rng(0)
    with running_hub() as hub:
        saved = {path.name: path.read_bytes() for path in tiny_folder.iterdir()}
        published = {name: noise.bytes(5000) for name in ("MedicalPatchNet_weights.pt", "EfficientNetV2S_weights.pt")}
        hub.repos["me/tiny"] = {"main": saved}
        hub.repos["patrick-w/MedicalPatchNet"] = {"main": published, "v1": {"MedicalPatchNet_weights.pt": b"first"}}
        hub.repos["me/far"] = {"main": {"large.pt": noise.bytes(25_000_000), "swapped.pt": b"other bytes"}}
        yield hub


@pytest.fixture(scope="module")
def filled_cache(hub, tmp_path_factory):
    """(home, paths by spec) after a first run that downloads a folder, a file and an older revision."""
    home = tmp_path_factory.mktemp("home")
    specs = ("hf://me/tiny", f"{PUBLISHED}/MedicalPatchNet_weights.pt", f"{PUBLISHED}@v1/MedicalPatchNet_weights.pt")
    found = resolve(hub, home, *specs, f"{PUBLISHED}/EfficientNetB0_weights.pt")
    assert {kind for kind, _ in found.values()} == {"ok"}, found
    return home, {spec: Path(path) for spec, (_, path) in found.items()}


def test_what_is_downloaded_is_what_the_hub_has(hub, filled_cache, tiny_folder):
    _, paths = filled_cache
    assert load_model(paths["hf://me/tiny"]).labels == ("A", "B")
    for name in ("config.json", "model.safetensors"):
        assert (paths["hf://me/tiny"] / name).read_bytes() == (tiny_folder / name).read_bytes()
    assert not (paths["hf://me/tiny"] / "README.md").exists()
    published = hub.repos["patrick-w/MedicalPatchNet"]
    for spec, revision in ((PUBLISHED, "main"), (f"{PUBLISHED}@v1", "v1")):
        name = "MedicalPatchNet_weights.pt"
        assert paths[f"{spec}/{name}"].read_bytes() == published[revision][name]


def test_the_baseline_is_found_under_its_other_name(hub, filled_cache):
    found = filled_cache[1][f"{PUBLISHED}/EfficientNetB0_weights.pt"]
    assert found.name == "EfficientNetV2S_weights.pt"
    assert found.read_bytes() == hub.repos["patrick-w/MedicalPatchNet"]["main"]["EfficientNetV2S_weights.pt"]


@pytest.mark.parametrize("offline", ["0", "1"])
def test_a_second_run_asks_nobody(hub, filled_cache, offline):
    home, paths = filled_cache
    again = resolve(hub, home, *paths, HF_HUB_OFFLINE=offline)
    assert {spec: ("ok", str(path)) for spec, path in paths.items()} == again
    assert hub.log == []


def test_a_cut_connection_resumes_where_it_broke(hub, tmp_path):
    hub.cut_after["large.pt"] = 21_000_000
    (kind, path), *_ = resolve(hub, tmp_path, "hf://me/far/large.pt").values()
    assert (kind, Path(path).read_bytes()) == ("ok", hub.repos["me/far"]["main"]["large.pt"])
    (first, span), (second, resumed) = asked_for_files(hub)
    assert (first, span, second) == ("large.pt", None, "large.pt")
    assert int(resumed.removeprefix("bytes=").removesuffix("-")) >= 20_000_000  # the hub's library keeps 10 MB pieces


def test_a_file_that_differs_from_its_sha256_is_refused_and_forgotten(hub, tmp_path):
    spec = "hf://me/far/swapped.pt"
    hub.promised["swapped.pt"] = b"what was once published"
    kind, message = resolve(hub, tmp_path, spec)[spec]
    promised = hashlib.sha256(b"what was once published").hexdigest()
    assert kind == "error"
    assert message.startswith(f"{spec}: the file differs from its recorded sha256")
    assert promised[:12] in message and "run the command again" in message
    del hub.promised["swapped.pt"]
    kind, path = resolve(hub, tmp_path, spec)[spec]
    assert (kind, Path(path).read_bytes()) == ("ok", b"other bytes")


def test_a_cached_file_that_rots_is_refused(hub, tmp_path):
    spec = "hf://me/tiny"
    weights = Path(resolve(hub, tmp_path, spec)[spec][1]) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.resolve().write_bytes(content)
    assert "differs from its recorded sha256" in resolve(hub, tmp_path, spec, HF_HUB_OFFLINE="1")[spec][1]


def test_mistakes_are_one_line_that_says_what_to_do(hub, tmp_path):
    said = {
        f"{PUBLISHED}/Medical.pt": "the weights there are MedicalPatchNet_weights.pt, EfficientNetV2S_weights.pt",
        PUBLISHED: "no such file in patrick-w/MedicalPatchNet; the weights there are MedicalPatchNet_weights.pt",
        f"{PUBLISHED}@v9/MedicalPatchNet_weights.pt": "patrick-w/MedicalPatchNet has no revision 'v9'",
        "hf://me/nothing/a.pt": f"no repository me/nothing at {hub.url}",
        "hf://me": "expected hf://owner/repo[@revision][/file]",
        "hf://me/tiny/../../a.pt": "hf://me/tiny/../../a.pt: not a name that the hub knows",
    }
    for spec, (kind, message) in resolve(hub, tmp_path, *said).items():
        assert kind == "error"
        assert message.startswith(f"{spec}: ")
        assert said[spec] in message
        assert "\n" not in message


def test_offline_without_a_cache_says_what_to_do(hub, tmp_path):
    said = resolve(hub, tmp_path, "hf://me/tiny", f"{PUBLISHED}/a.pt", HF_HUB_OFFLINE="1")
    for spec, (kind, message) in said.items():
        assert kind == "error"
        assert message.startswith(f"{spec}: not downloaded yet, and HF_HUB_OFFLINE=1 forbids it: run once with")
        assert "HF_HOME" in message and "\n" not in message
    assert hub.log == []


PUSH = """
import sys
from models.checkpoint import load_model
from models.patch_net import MedicalPatchNet
model = load_model(sys.argv[1])
model.details["thresholds"] = {"A": 0.25, "B": None}
model.push_to_hub("me/pushed", token="hf_none")
again = MedicalPatchNet.from_pretrained("me/pushed")
again.save_pretrained(sys.argv[2])
"""


def test_push_to_hub_and_from_pretrained_meet_in_the_middle(hub, tiny_folder, tmp_path):
    saved = tmp_path / "again"
    run_python(hub, tmp_path / "home", PUSH, str(tiny_folder), str(saved), HF_HUB_DISABLE_XET="1")
    pushed = hub.repos["me/pushed"]["main"]
    assert set(pushed) >= {"config.json", "model.safetensors", "README.md"}
    assert pushed["model.safetensors"] == (tiny_folder / "model.safetensors").read_bytes()
    assert "Not a medical device" in pushed["README.md"].decode()
    assert {path.name for path in saved.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    for path in saved.iterdir():
        assert path.read_bytes() == pushed[path.name]
    assert load_model(saved).details["thresholds"] == {"A": 0.25, "B": None}


def test_the_reference_of_relative_maps_travels_with_a_folder(hub, tiny_folder, tmp_path):
    pushed = {path.name: path.read_bytes() for path in tiny_folder.iterdir()} | {"reference.npz": b"means"}
    hub.repos["me/with_reference"] = {"main": pushed}
    ((kind, path),) = resolve(hub, tmp_path / "home", "hf://me/with_reference").values()
    assert kind == "ok" and (Path(path) / "reference.npz").read_bytes() == b"means"
    assert [name for name, _ in asked_for_files(hub)] == ["config.json", "reference.npz", "model.safetensors"]
    assert resolve(hub, tmp_path / "home", "hf://me/with_reference") == {"hf://me/with_reference": ("ok", path)}
    assert hub.log == []


@pytest.mark.parametrize("spec", ["", "~nobody_of_this_name/weights", "savedModels/mistyped", "x" * 200, "a\x1b[2Jb"])
def test_names_of_nothing_are_refused_in_one_line_without_asking_the_hub(spec, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked the network"))
    with pytest.raises(InputError, match="no such file or folder of weights") as told:
        resolve_weights(spec)
    assert str(told.value).isprintable()


def test_the_folder_that_one_stands_in_is_a_name_of_weights(tiny_folder, monkeypatch):
    monkeypatch.chdir(tiny_folder)
    assert load_model(resolve_weights(".")).labels == ("A", "B")


def test_a_mistyped_folder_of_from_pretrained_answers_at_once(tiny_folder, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked the network"))
    for name in (tiny_folder.parent / "mistyped", Path("models/mistyped"), "tests/models"):
        with pytest.raises(InputError, match="no such folder of weights|no config.json"):
            MedicalPatchNet.from_pretrained(name)


@pytest.mark.parametrize(
    "name", ["./mistyped", "mistyped", "../mistyped/x", "~/mistyped/x", "/mistyped", ".", "a/b/c", ""]
)
def test_what_is_no_repository_is_refused_without_asking_the_hub(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked the network"))
    with pytest.raises(InputError) as refusal:
        MedicalPatchNet.from_pretrained(name)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("savedModel/tiny", "savedModels/tiny"),
        ("savedModels/tinny", "savedModels/tiny"),
        ("saved", None),
        ("a/tiny", None),
    ],
)
def test_a_mistyped_name_is_answered_with_the_one_that_is_there(name, meant, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "savedModels").mkdir()
    (tmp_path / "savedModels/tiny").symlink_to(tiny_folder)
    monkeypatch.setattr("models.hub._is_reachable", lambda address: False)
    for take in (resolve_weights, MedicalPatchNet.from_pretrained):
        with pytest.raises(InputError) as refusal:
            take(name)
        assert ("did you mean" in str(refusal.value)) == (meant is not None)
        assert meant is None or str(refusal.value).endswith(f"; did you mean {meant}?")
    assert MedicalPatchNet.from_pretrained("savedModels/tiny").labels == ("A", "B")


@pytest.mark.parametrize("offline", ["0", "1"])
def test_a_hub_that_cannot_be_reached_is_one_line_at_once(offline, tmp_path):
    with socket.socket() as held:  # bound but not listening: connections are refused
        held.bind(("127.0.0.1", 0))
        closed = Hub(url=f"http://127.0.0.1:{held.getsockname()[1]}")
        started = time.monotonic()
        said = resolve(closed, tmp_path, "hf://me/tiny", f"{PUBLISHED}/a.pt", HF_HUB_OFFLINE=offline)
        taken = time.monotonic() - started
    words = "cannot be reached" if offline == "0" else "HF_HUB_OFFLINE=1 forbids it"
    assert all(kind == "error" and words in message and "\n" not in message for kind, message in said.values())
    assert taken < 20  # the imports of a fresh process; the library's own retries alone would take 46 s


def test_local_names(tiny_folder, tmp_path):
    assert resolve_weights(tiny_folder) == tiny_folder
    assert resolve_weights(str(tiny_folder / "model.safetensors")) == tiny_folder / "model.safetensors"
    (tmp_path / "EfficientNetV2S_weights.pt").touch()
    found = resolve_weights(tmp_path / "EfficientNetB0_weights.pt")
    assert found == tmp_path / "EfficientNetV2S_weights.pt"
    with pytest.raises(InputError, match="no such file or folder of weights"):
        resolve_weights(tmp_path / "MedicalPatchNet_weights.pt")


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("savedModels/MedicalPatchNet", "MedicalPatchNet"),
        ("MedicalPatchNet_weights.pt", "MedicalPatchNet_weights"),
        (f"{PUBLISHED}@v1", "MedicalPatchNet"),
        (f"{PUBLISHED}@v1/EfficientNetB0_weights.pt", "EfficientNetB0_weights"),
        ("savedModels/MedicalPatchNet.v2/", "MedicalPatchNet.v2"),
        ("savedModels/MedicalPatchNet/model.safetensors", "MedicalPatchNet"),
        ("savedModels/MedicalPatchNet/best", "best"),
        (".", Path.cwd().name),
        ("..", Path.cwd().parent.name),
    ],
)
def test_results_are_called_after_the_weights(spec, name):
    assert weights_name(spec) == name
