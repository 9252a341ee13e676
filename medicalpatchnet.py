"""MedicalPatchNet from Python: load weights, explain a film.

import medicalpatchnet

model = medicalpatchnet.load("demo/savedModels/MedicalPatchNet")
explanation = medicalpatchnet.explain(model, "film.png")
print(explanation.probabilities)
explanation.overlay("Edema").save("edema.png")
explanation.save("explained")
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cxr.dataset import network_input
from cxr.files import InputError, quoted, replacing, write_json
from cxr.film_folder import LONGEST_FILE_NAME, UniqueNames, shortened
from cxr.images import Crop, open_film, resize, to_unit
from cxr.labels import positions
from cxr.names import FILM_STRIDE, METHODS, REFERENCE, RELATIVE
from cxr.pixels.grey import Grey
from models.checkpoint import load_model, weights_file
from models.hub import resolve_weights
from models.patch_net import MedicalPatchNet
from models.weights_folder import WEIGHTS_NAME
from saliency.contributions import Contributions
from saliency.evidence.dense_grid import is_dense
from saliency.evidence.fineness import Fineness, fineness
from saliency.evidence.stride_error import stride_errors
from saliency.film_maps import Evidence, film_maps, gather_evidence
from saliency.reference import reference_of
from saliency.relative import Comparison, compared, fitting_steps, relative_maps

__all__ = ["Explanation", "explain", "load"]

VIEWS = ("frontal", "lateral", "")


def load(weights: str | os.PathLike[str], patch_size: int | None = None, device: str = "cpu") -> MedicalPatchNet:
    """A network in evaluation mode.

    weights: a folder, a `.pt` or `.safetensors` file, or `hf://owner/repo[@revision][/file]`. patch_size: needed for
    published `.pt` files. A `reference.npz` beside the weights, with which films have relative maps, is read as well.
    Raises InputError when they are missing, damaged, or do not fit.
    """
    path = resolve_weights(os.fspath(weights))
    model = load_model(path, patch_size=patch_size, device=device)
    tensors = weights_file(path)
    if path.is_dir() or tensors.name == WEIGHTS_NAME:
        model.reference = reference_of(tensors.with_name(REFERENCE), model, tensors)
    return model.to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Explanation:
    """A film's prediction and where it comes from.

    parts: logits and contributions. grid: (C, n, n) evidence grid, the logits of the patch at every start; None for a
    baseline. maps: label -> (h, w) float32 in [0, 1] in the film's frame, the shorter side being the network's image
    size: `raw` maps, 0.5 neutral, or for a baseline `gradcam`, 0 neutral. film: (H, W) float32 in [0, 1].
    compared: contributions relative to the average film, and relative: the maps of these, 0.5 neutral, for the labels
    that the weights have a reference of; None and empty without one. errors: label -> estimated mean error of its map
    in percent of the map's range; empty where every start of the grid was computed.
    """

    labels: tuple[str, ...]
    parts: Contributions
    method: str
    grid: np.ndarray | None
    maps: Mapping[str, np.ndarray]
    film: np.ndarray
    compared: Comparison | None = None
    relative: Mapping[str, np.ndarray] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)

    @property
    def probabilities(self) -> dict[str, float]:
        """Label -> probability."""
        return dict(zip(self.labels, self.parts.probabilities.tolist(), strict=True))

    @property
    def contributions(self) -> np.ndarray:
        """(P, C) float64: what each patch adds to each logit; patches in row-major order."""
        return self.parts.values

    def overlay(self, label: str, method: str | None = None) -> Image.Image:
        """The film tinted by the label's map, at the film's size, where the network saw it; bare where it is neutral.

        method: that of `maps` by default, or `relative`. Raises InputError for a label without such a map.
        """
        from reporting.pictures.overlays import tint  # here, for matplotlib's import would delay the first prediction

        seen, method = self._seen, method or self.method
        picture = np.repeat(np.rint(255 * self.film).astype(np.uint8)[..., None], 3, axis=2)  # (H, W, 3)
        picture[seen] = tint(self.film[seen], self._heat(label, method)[seen], signed=METHODS[method].signed)
        return Image.fromarray(picture)

    def picture(self, label: str, method: str | None = None) -> Image.Image:
        """The overlay, and below it label, probability and the meaning of the colours, with their scale."""
        from reporting.pictures.captions import ColourBar, captioned
        from reporting.pictures.overlays import tint_scale

        facts = self.overlay_facts(label, method)
        meaning, ends = f"{METHODS[facts['method']].title}: the redder, the higher", ("least", "most")
        if "full_colour_at_logit" in facts:
            full = f"{facts['full_colour_at_logit']:.2g}"
            meaning = f"{facts['method']} evidence: red for, blue against; full colour at a logit of {full}"
            ends = f"−{full}", f"+{full}"
        probability = f"{label}: probability {self.probabilities[label]:.3f}"
        bar = ColourBar(tint_scale(signed=METHODS[facts["method"]].signed), ends)
        return captioned(self.overlay(label, method), [probability, meaning], bar)

    def overlay_facts(self, label: str, method: str | None = None) -> dict[str, Any]:
        """The meaning of an overlay's colours: `method`, and for evidence the logit at which they are full.

        With `estimated_error_percent`, of the map's range, where evidence between the starts is filled.
        """
        from reporting.pictures.overlays import LOGIT_RANGE, evidence_scale

        method = method or self.method
        if not METHODS[method].signed:
            return {"method": method}
        scale = evidence_scale(self._heat(label, method)[self._seen])
        facts = {"method": method, "full_colour_at_logit": LOGIT_RANGE * scale}
        estimated = method == self.method and label in self.errors
        return facts | ({"estimated_error_percent": self.errors[label]} if estimated else {})

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `explanation.json`, `arrays.npz` (labels, contributions, maps) and pictures of each label.

        With a reference also what is relative to the average film. Each file is written whole or not at all.
        """
        folder, names = Path(folder), UniqueNames()
        arrays = {"labels": np.array(self.labels), "contributions": self.contributions}
        arrays |= {"maps": np.stack([self.maps[label] for label in self.labels])}  # (C, h, w)
        arrays |= {} if self.compared is None else {"relative": self.compared.values}  # (P, C)
        with replacing(folder / "arrays.npz") as temporary, open(temporary, "wb") as handle:
            np.savez(handle, **arrays)
        pictures = {}
        for label in self.labels:
            pictures[label] = f"{names.of(shortened(label, LONGEST_FILE_NAME))}.png"
            save_picture(folder / pictures[label], self.picture(label))
        facts = {"probabilities": self.probabilities, "logits": dict(zip(self.labels, self.parts.logits, strict=True))}
        overlays = {label: {"file": file} | self.overlay_facts(label) for label, file in pictures.items()}
        facts |= {"crop": asdict(self.parts.crop), "overlays": overlays}
        if self.compared is not None:
            facts["relative"] = self._save_relative(self.compared, folder, names)
        write_json(folder / "explanation.json", facts)

    def _save_relative(self, compared_with: Comparison, folder: Path, names: UniqueNames) -> dict[str, Any]:
        """The pictures of the relative maps, and what `explanation.json` says of them."""
        labels = {}
        for label in self.relative:
            row = self.labels.index(label)
            file = f"{names.of(shortened(f'{label}_relative', LONGEST_FILE_NAME))}.png"
            save_picture(folder / file, self.picture(label, RELATIVE))
            numbers = {"average_film": float(compared_with.average[row]), "patches": float(compared_with.sums[row])}
            labels[label] = numbers | {"overlay": {"file": file} | self.overlay_facts(label, RELATIVE)}
        return compared_with.facts() | {"labels": labels}

    @property
    def _seen(self) -> tuple[slice, slice]:
        left, top, right, bottom = self.parts.crop.box
        return np.s_[top:bottom, left:right]

    def _heat(self, label: str, method: str) -> np.ndarray:
        """(H, W): the map at the film's size."""
        positions([label], self.labels, "the network")
        maps = {self.method: self.maps, RELATIVE: self.relative}.get(method, {})
        if label not in maps:
            reason = "the weights have no reference of it (evalClassification.py --all-labels makes that of all labels)"
            raise InputError(f"{quoted(label)}: there is no {method} map of it; {reason}")
        return resize(torch.from_numpy(maps[label])[None], self.film.shape)[0].numpy()  # type: ignore[arg-type]


def explain(
    model: MedicalPatchNet,
    film: str | os.PathLike[str] | Image.Image | np.ndarray,
    *,
    view: str = "",
    steps_per_patch: int | None = None,
    stride: int | None = None,
    batch_size: int = 8,
    progress: Callable[[int], object] | None = None,
) -> Explanation:
    """Predicts a film and explains the prediction.

    film: a file (PNG, JPEG, TIFF, DICOM, ...), a Pillow image, or an array (H, W): uint8, uint16, or float in [0, 1].
    view: frontal or lateral, which says the average film that it is compared with; of all views by default.
    stride: pixels between the patches whose logits are computed, `FILM_STRIDE` by default; the maps are filled linearly
    in between. steps_per_patch: instead of a stride, shifts of the patch grid, a divisor of the patch size and of the
    steps of the weights' reference. batch_size: memory, in films' worth of patches. progress: called with the number of
    patches just computed.
    Raises InputError for a film that cannot be read or has values out of range, and for an unusable stride or steps.
    """
    if view not in VIEWS:
        raise InputError(f"view {quoted(view)}: expected frontal, lateral, or an empty text for one that is not known")
    grey = grey_film(film, Grey.from_json(model.details.get("grey"), "the weights' details"))
    chosen = film_fineness(model, steps_per_patch, stride)
    return explain_grey(model, grey, view=view, fineness=chosen, batch_size=batch_size, progress=progress)


def film_fineness(model: MedicalPatchNet, steps: int | None, stride: int | None) -> Fineness:
    """Steps or a stride for the maps of single films.

    Without either, what the reference of the weights allows, for relative maps are of the same starts. Raises
    InputError for one that the network cannot have, or its reference lacks.
    """
    sizes = {"patch_size": model.patch_size, "image_size": model.image_size}
    if model.reference is not None and model.reference.settings.steps_per_patch < model.patch_size:
        if stride is not None:
            own = model.reference.settings.steps_per_patch
            raise InputError(f"--stride {stride}: the weights' {REFERENCE} has {own} steps; give --steps-per-patch")
        try:
            steps = fitting_steps(model.reference, steps)
        except InputError as error:
            raise InputError(f"--steps-per-patch: {error}") from None
    default = 1 if is_dense(model) else FILM_STRIDE  # a dense network gives every start in few passes
    return fineness(steps, stride, default_stride=default, **sizes)


def explain_grey(
    model: MedicalPatchNet,
    grey: Image.Image,
    *,
    view: str = "",
    fineness: Fineness,
    batch_size: int,
    parts: Contributions | None = None,
    progress: Callable[[int], object] | None = None,
) -> Explanation:
    """`explain` for a film that `cxr.images.open_film` returned: grey, in [0, 255]. parts: the film's, if known."""
    image, crop = network_input(grey, model.image_size)  # (1, S, S)
    model.check_images(image[None])
    parts = parts or _predicted(model, image, crop)
    method = "raw" if model.patch_size < model.image_size else "gradcam"
    evidence = gather_evidence(
        model,
        image,
        crop,
        methods=[method],
        steps_per_patch=fineness.steps_per_patch,
        stride=fineness.stride,
        batch_size=batch_size,
        progress=progress,
    )
    maps = film_maps(evidence, [method], "corrected")[method].numpy()  # (C, h, w)
    tasks, reference = task_names(model), model.reference
    return Explanation(
        model.labels,
        parts,
        method,
        None if evidence.grid is None else evidence.grid.numpy(),
        dict(zip(model.labels, maps, strict=True)),
        to_unit(grey)[0].clamp(0, 1).numpy(),
        None if reference is None else compared(parts.values, reference, tasks, view),
        {} if reference is None else relative_maps(evidence, model.labels, tasks, reference, view),
        _errors(model.labels, evidence),
    )


def _predicted(model: MedicalPatchNet, image: Tensor, crop: Crop) -> Contributions:
    """The prediction of an image (1, S, S) and its parts."""
    with torch.inference_mode():
        logits = model(image[None].to(next(model.parameters()).device))[0]  # (C,)
    if not torch.isfinite(logits).all():
        raise InputError("the network's logits are not finite numbers; its weights are damaged")
    return Contributions.of(model, image, logits, crop)


def task_names(model: MedicalPatchNet) -> list[str]:
    """The tasks of the network's labels, by which references and outlines know them."""
    return [model.label_set.task_of(label) for label in model.labels]


def _errors(labels: Sequence[str], evidence: Evidence) -> dict[str, float]:
    """Label -> estimated error of its map in percent of its range, for maps that have one; empty without a stride."""
    if evidence.grid is None or evidence.stride == 1:
        return {}
    errors = zip(labels, stride_errors(evidence.grid, evidence.pixels).tolist(), strict=True)
    return {label: error for label, error in errors if math.isfinite(error)}


def grey_film(film: str | os.PathLike[str] | Image.Image | np.ndarray, grey: Grey = Grey.STORED) -> Image.Image:
    """A film of any of the kinds that `explain` takes as a grey Pillow image in [0, 255], as `open_film` returns it.

    grey: the rule for files. Raises InputError for values and shapes that are not a film's.
    """
    if isinstance(film, (str, os.PathLike)):
        return open_film(Path(film), grey)
    if isinstance(film, Image.Image):
        deep = film.mode == "F" or film.mode.startswith("I")
        return grey_film(np.asarray(film)) if deep else film.convert("L")
    pixels = np.asarray(film)
    if pixels.ndim != 2 or not pixels.size:
        raise InputError(f"expected a grey film (H, W), got an array of shape {pixels.shape}")
    if pixels.dtype == np.uint8:
        return Image.fromarray(pixels)
    if pixels.dtype.kind == "u" and pixels.itemsize == 2:  # of either byte order
        return Image.fromarray(pixels.astype(np.float32) * np.float32(255 / 65535))
    if not np.issubdtype(pixels.dtype, np.floating):
        raise InputError(f"expected a film of uint8, uint16 or float in [0, 1], got {quoted(str(pixels.dtype))}")
    low, high = float(pixels.min()), float(pixels.max())
    if not 0 <= low <= high <= 1:  # written so that NaN fails
        raise InputError(f"expected floats in [0, 1], got values from {low:g} to {high:g}; uint8 arrays are 0 to 255")
    return Image.fromarray(pixels.astype(np.float32) * np.float32(255))


def save_picture(target: Path, picture: Image.Image) -> None:
    """Writes a PNG without any text in it, atomically."""
    with replacing(target) as temporary:
        picture.save(temporary, format="png", compress_level=3)
