"""Pictures of a report as the page holds them: PNG files as data, each with its content in words."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cxr.files import InputError
from cxr.names import LOCALIZED, localization_folder
from reporting.localization_results import MIOU_ALL, MIOU_TP
from reporting.pictures.curves import MIOU_CURVE
from reporting.results import Results


@dataclass(frozen=True)
class Picture:
    """title: stands above it. alt: replaces it for those who cannot see it. width, height: pixels."""

    title: str
    alt: str
    uri: str
    width: int
    height: int


def classification_pictures(paths: Sequence[Path], results: Results) -> list[Picture]:
    """Those of `classification_figures` among the files of a report, in their order."""
    numbers = "the numbers stand in Table 1, per label"
    found = [
        _picture(path, "AUROC per label", f"A row per label with each model's AUROC and 95% interval; {numbers}.")
        for path in paths
        if path.name == "figure1.png"
    ]
    for model in results.models:
        for kind, alt in (
            ("roc", "A panel per label: the ROC curve with the point of the Youden threshold"),
            ("reliability", "A panel per label: the share of positive films against the mean predicted probability"),
        ):
            title = f"{'ROC curves' if kind == 'roc' else 'Reliability'}: {model.name}"
            paths_of_kind = [path for path in paths if path.name == f"{kind}_{model.folder.name}.png"]
            found += [_picture(path, title, f"{alt}; {numbers}.") for path in paths_of_kind]
    return found


def curve_pictures(results: Results, missing: list[str]) -> list[Picture]:
    """The mIoU curves of every scored method; the folders without one become a line of `missing`."""
    alt = (
        "A panel per pathology: mean IoU of the validation films against the heat-map threshold, the best one marked; "
        "the test films' IoU stands in the tables."
    )
    places = list(_curve_places(results))
    absent: dict[Path, list[str]] = {}
    for path, _ in places:
        if not path.exists():
            folder = next(parent.parent for parent in path.parents if parent.name in LOCALIZED)
            absent.setdefault(folder, []).append(str(path.relative_to(folder)))
    for folder, names in absent.items():
        missing.append(f"{folder}: no {', '.join(names)}; made by python evalLocalization.py RESULTS...")
    return [_picture(path, title, alt) for path, title in places if path.exists()]


def _curve_places(results: Results) -> Iterator[tuple[Path, str]]:
    """Path and title of the curves of all scored methods."""
    for protocol in results.protocols:
        for method in results.methods:
            model = results.model_of(method)
            for measure, below in ((MIOU_TP, ""), (MIOU_ALL, "tp_fp_fn")):
                if model is not None and (protocol, method, measure) in results.localization:
                    folder = localization_folder(model.folder, protocol, method) / below
                    yield folder / f"{MIOU_CURVE}.png", f"{LOCALIZED[method].title}, {protocol} protocol, {measure}"


def _picture(path: Path, title: str, alt: str) -> Picture:
    try:
        with Image.open(path, formats=["PNG"]) as image:
            width, height = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise InputError(f"{path}: not a readable PNG picture; delete it and run again") from None
    return Picture(title, alt, data_uri(path.read_bytes(), "image/png"), width, height)


def data_uri(content: bytes, media_type: str) -> str:
    """A `data:` URI of a file's content."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
