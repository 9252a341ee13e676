"""The Python API: load weights, explain a film given in any form, draw and save the explanation."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import medicalpatchnet
from cxr.files import InputError
from cxr.images import Crop
from cxr.labels import CHEXPERT
from models.checkpoint import build_model, save_model
from reporting.pictures.overlays import tint
from saliency.film_maps import to_film_frame
from saliency.patch_maps import logits_to_unit, patch_maps
from tests.films import film_pixels
from tests.predicting import predict, results, save_patch_network


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_patch_network(tmp_path_factory.mktemp("weights") / "patches")


@pytest.fixture(scope="module")
def model(weights):
    return medicalpatchnet.load(str(weights))


def crop_of(pixels: np.ndarray) -> torch.Tensor:
    """(1, 1, 64, 64) in [0, 1]: the centred square of a film of 288 x 384, resized by torch alone."""
    square = torch.from_numpy(pixels[:, 48 : 48 + 288] / np.float32(255))[None, None]
    return torch.nn.functional.interpolate(square, (64, 64), mode="bilinear", antialias=True, align_corners=False)


@pytest.mark.parametrize(("device", "allowed"), [("cuda", False), ("cuda:1", False), ("cpu", True)])
def test_a_network_on_cuda_computes_float32_in_float32(device, allowed, weights, monkeypatch):
    load_model = medicalpatchnet.load_model
    monkeypatch.setattr(medicalpatchnet, "load_model", lambda path, patch_size, device: load_model(path))  # on the CPU
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    medicalpatchnet.load(weights, device=device)
    assert torch.backends.cudnn.allow_tf32 is allowed


def test_an_explanation_is_what_the_network_says(model):
    pixels = film_pixels()
    explanation = medicalpatchnet.explain(model, pixels, steps_per_patch=4)
    image = crop_of(pixels)
    with torch.inference_mode():
        logits, patch_logits = model(image)[0], model.patch_logits(image)[0]  # (C,), (P, C)
    assert list(explanation.probabilities) == list(CHEXPERT.names) == list(explanation.maps)
    np.testing.assert_allclose(list(explanation.probabilities.values()), logits.sigmoid(), atol=1e-5)
    np.testing.assert_allclose(explanation.contributions, patch_logits / 16, atol=1e-5)
    np.testing.assert_allclose(explanation.contributions.sum(axis=0), logits, atol=1e-5)
    assert explanation.grid.shape == (14, 16, 16) and explanation.contributions.shape == (16, 14)
    np.testing.assert_allclose(explanation.grid[:, 2::4, 2::4].reshape(14, 16).T, patch_logits, atol=1e-5)

    raw = logits_to_unit(patch_maps(model, image[0], steps_per_patch=4, protocol="corrected", batch_size=1)["raw"])
    expected = to_film_frame(raw, Crop.centred(384, 288), "corrected")  # (14, 64, 85)
    assert explanation.maps["Edema"].shape == (64, 85)
    for label, heat in enumerate(expected):
        np.testing.assert_allclose(explanation.maps[CHEXPERT.names[label]], heat, atol=1e-6)


def test_a_film_is_the_same_in_every_form(model, tmp_path):
    pixels = film_pixels()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    deep = pixels.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    forms = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        tmp_path / "deep.png",
        Image.fromarray(pixels),
        Image.fromarray(pixels).convert("RGB"),
        Image.fromarray(deep),
        deep,
        deep.astype(">u2"),
        pixels / 255,
        (pixels / 255).astype(np.float32),
        Image.fromarray((pixels / 255).astype(np.float32)),
    ]
    expected = medicalpatchnet.explain(model, pixels, steps_per_patch=1)
    for form in forms:
        found = medicalpatchnet.explain(model, form, steps_per_patch=1)
        np.testing.assert_allclose(found.contributions, expected.contributions, atol=1e-5)
        np.testing.assert_allclose(found.film, pixels / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("film", "message"),
    [
        (
            film_pixels().astype(float),
            r"expected floats in \[0, 1\], got values from 1 to 252; uint8 arrays are 0 to 255",
        ),
        (film_pixels() / 255 - 0.5, r"expected floats in \[0, 1\], got values from -0.49"),
        (np.full((300, 300), np.nan), r"expected floats in \[0, 1\], got values from nan"),
        (np.full((300, 300), np.inf), r"expected floats in \[0, 1\], got values from inf"),
        (film_pixels().astype(np.int64), "expected a film of uint8, uint16 or float in"),
        (film_pixels() > 3, "expected a film of uint8, uint16 or float in"),
        (film_pixels().astype(complex), "expected a film of uint8, uint16 or float in"),
        (film_pixels()[..., None], r"expected a grey film \(H, W\), got an array of shape \(288, 384, 1\)"),
        (np.zeros((0, 5), np.uint8), r"got an array of shape \(0, 5\)"),
        (Image.fromarray(film_pixels().astype(np.float32)), r"got values from 1 to 252"),
        (np.zeros((8, 10_000), np.uint8), "no heat map of a film of 10000 x 8 px"),
        ("nowhere.png", "nowhere.png: no such film"),
    ],
)
def test_sizes_and_ranges_that_are_not_a_films_are_refused(model, film, message):
    with pytest.raises(InputError, match=message) as told:
        medicalpatchnet.explain(model, film)
    assert "\n" not in str(told.value)


def test_steps_that_do_not_divide_the_patch_are_refused(model):
    with pytest.raises(ValueError, match="3 steps per patch of 16 pixels; possible are 1, 2, 4, 8, 16"):
        medicalpatchnet.explain(model, film_pixels(), steps_per_patch=3)


def test_an_overlay_colours_what_the_network_saw_and_nothing_else(model):
    pixels = film_pixels()
    explanation = medicalpatchnet.explain(model, pixels, steps_per_patch=1)
    drawn = np.asarray(explanation.overlay("Edema"))
    assert drawn.shape == (288, 384, 3)
    for outside in (np.s_[:, :48], np.s_[:, 336:]):
        np.testing.assert_array_equal(drawn[outside], np.repeat(pixels[outside][..., None], 3, axis=2))
    centres = np.s_[36::72, 48 + 36 : 336 : 72]  # the middles of the 4 x 4 patches
    evidence = explanation.contributions[:, CHEXPERT.names.index("Edema")].reshape(4, 4) * 16
    heat = logits_to_unit(torch.from_numpy(evidence)).float().numpy()
    np.testing.assert_allclose(drawn[centres], tint(pixels[centres] / 255, heat, signed=True), atol=3)
    full = explanation.overlay_facts("Edema")["full_colour_at_logit"]
    assert full == pytest.approx(np.abs(evidence).max(), rel=1e-3)
    with pytest.raises(InputError, match="the network: no 'Oedema'"):
        explanation.overlay("Oedema")


def test_a_baseline_is_explained_by_grad_cam(tmp_path):
    torch.manual_seed(0)
    save_model(
        build_model("timm/test_efficientnet", patch_size=64, image_size=64, labels=CHEXPERT.names), tmp_path / "b"
    )
    explanation = medicalpatchnet.explain(medicalpatchnet.load(tmp_path / "b"), film_pixels())
    assert explanation.method == "gradcam" and explanation.grid is None
    assert explanation.contributions.shape == (1, 14)
    assert explanation.overlay_facts("Edema") == {"method": "gradcam"}
    assert all(0 <= heat.min() and heat.max() <= 1 for heat in explanation.maps.values())


def test_an_explanation_is_saved_and_draws_what_predictimage_draws(model, weights, tmp_path):
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")
    explanation = medicalpatchnet.explain(model, tmp_path / "a.png", steps_per_patch=2)
    explanation.save(tmp_path / "saved")
    assert predict(weights, tmp_path / "out", tmp_path / "a.png", "--overlays", "all") == 0
    facts = json.loads((tmp_path / "saved/explanation.json").read_text())
    assert facts["probabilities"] == explanation.probabilities
    by_script = results(tmp_path / "out")[1]["films"][0]["labels"]
    for entry in by_script:
        ours = facts["overlays"][entry["label"]]
        drawn, expected = tmp_path / "saved" / ours.pop("file"), tmp_path / "out" / entry["overlay"].pop("file")
        assert drawn.read_bytes() == expected.read_bytes()
        assert ours == entry["overlay"]
    with np.load(tmp_path / "saved/arrays.npz") as arrays:
        assert list(arrays["labels"]) == list(CHEXPERT.names)
        np.testing.assert_array_equal(arrays["contributions"], explanation.contributions)
        np.testing.assert_array_equal(arrays["maps"][5], explanation.maps[CHEXPERT.names[5]])
    assert len(list((tmp_path / "saved").iterdir())) == 2 + len(CHEXPERT.names)


def test_progress_counts_every_patch(model):
    counted = []
    medicalpatchnet.explain(model, film_pixels(), steps_per_patch=2, progress=counted.append)
    assert sum(counted) == (64 // 16 * 2) ** 2
