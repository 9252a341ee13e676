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
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cxr.dataset import network_input
from cxr.files import InputError, quoted
from cxr.images import Crop, open_film
from cxr.names import FILM_STRIDE, REFERENCE
from cxr.pixels.grey import Grey
from cxr.pixels.tensors import to_unit
from film_explanation import Explanation
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
from saliency.relative import compared, fitting_steps, relative_maps

__all__ = ["Explanation", "explain", "load"]

VIEWS = ("frontal", "lateral", "")


def load(weights: str | os.PathLike[str], patch_size: int | None = None, device: str = "cpu") -> MedicalPatchNet:
    """A network in evaluation mode.

    weights: a folder, a `.pt` or `.safetensors` file, or `hf://owner/repo[@revision][/file]`. patch_size: needed for
    published `.pt` files. A `reference.npz` beside the weights, with which films have relative maps, is read as well.
    On CUDA, convolutions of float32 are computed in float32 from then on: TF32, torch's default, keeps 10 bits of the
    mantissa, too few for contributions that sum to the logit.
    Raises InputError when they are missing, damaged, or do not fit.
    """
    if device.startswith("cuda"):
        torch.backends.cudnn.allow_tf32 = False
    path = resolve_weights(os.fspath(weights))
    model = load_model(path, patch_size=patch_size, device=device)
    tensors = weights_file(path)
    if path.is_dir() or tensors.name == WEIGHTS_NAME:
        model.reference = reference_of(tensors.with_name(REFERENCE), model, tensors)
    return model.to(memory_format=torch.channels_last)


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
    return Contributions.of(model, image, film_logits(model, image[None])[0], crop)


@torch.inference_mode()
def film_logits(model: MedicalPatchNet, images: Tensor) -> Tensor:
    """Images (B, 1, S, S) in [0, 1] -> logits (B, C) on the CPU. Raises InputError for logits that are not finite."""
    logits = model(images.to(next(model.parameters()).device)).cpu()
    if not torch.isfinite(logits).all():
        raise InputError("the network's logits are not finite numbers; its weights are damaged")
    return logits


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
