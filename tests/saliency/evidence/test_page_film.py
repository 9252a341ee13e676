"""The larger film inside an evidence file: what it holds, and that no map depends on it."""

import numpy as np
import pytest
import torch
from PIL import Image

from cxr.files import InputError
from cxr.images import Crop
from saliency.evidence.evidence_facts import FilmLabels
from saliency.evidence.evidence_files import write_evidence
from saliency.evidence.evidence_folders import EvidenceFolder
from saliency.evidence.page_film import SIDE, encoded_film
from saliency.film_maps import Evidence

LABELS = FilmLabels("film", ["Edema"], [0.5], [1])


def soft_film(height, width):
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 2, width), indexing="ij")
    return (0.5 + 0.4 * torch.sin(x) * torch.cos(y))[None]


def written(path, cams, page_film):
    """Evidence of a wide film of 1000 x 800 pixels, of a network of 64."""
    evidence = Evidence(Crop.centred(1000, 800), 64, 1, 64, None, cams)
    write_evidence(path, evidence, LABELS, torch.full((64, 80), 0.5), page_film=page_film)


def folder_of(path, protocol="corrected"):
    return EvidenceFolder(path.parent, method="gradcam", protocol=protocol, tasks=["Edema"])


@pytest.mark.parametrize(
    ("size", "held"), [((800, 1000), (768, 960)), ((1200, 900), (1024, 768)), ((700, 720), (700, 720))]
)
def test_a_film_is_held_up_to_768_pixels(size, held, tmp_path):
    film, cams = soft_film(*size), {"gradcam": torch.rand(1, 4, 4)}
    written(tmp_path / "film.npz", cams, encoded_film(film, 64))
    found = folder_of(tmp_path / "film.npz").page_film("film")
    assert found.shape == held and min(held) <= SIDE
    resized = Image.fromarray(film[0].numpy()).resize(held[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_allclose(found, np.asarray(resized), atol=0.015)


def test_a_film_no_larger_than_its_maps_is_not_held_twice():
    assert encoded_film(soft_film(64, 90), 64) is None


def test_maps_and_films_are_those_of_a_file_without_it(tmp_path):
    """A file as it was before holds the film under its maps, and the published protocol shows the square alone."""
    cams = {"gradcam": torch.rand(1, 4, 4)}
    paths = [tmp_path / name / "film.npz" for name in ("before", "now")]
    for path, page_film in zip(paths, (None, encoded_film(soft_film(800, 1000), 64)), strict=True):
        path.parent.mkdir()
        written(path, cams, page_film)
    before, now = map(folder_of, paths)
    np.testing.assert_array_equal(now.load("film", "Edema").map, before.load("film", "Edema").map)
    np.testing.assert_array_equal(now.film_pixels("film"), before.film_pixels("film"))
    np.testing.assert_array_equal(before.page_film("film"), before.film_pixels("film"))


def test_a_second_method_keeps_the_film_or_adds_it(tmp_path):
    path, page_film = tmp_path / "film.npz", encoded_film(soft_film(800, 1000), 64)
    written(path, {"gradcam": torch.rand(1, 4, 4)}, None)
    for method, given in (("gradcam++", page_film), ("eigencam", None)):
        written(path, {method: torch.rand(1, 4, 4)}, given)
        with np.load(path) as content:
            np.testing.assert_array_equal(content["page film"], page_film)
            assert f"{method} Edema" in content and "gradcam Edema" in content


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xe0 cut"])
def test_a_damaged_film_is_one_line(content, tmp_path):
    written(tmp_path / "film.npz", {"gradcam": torch.rand(1, 4, 4)}, np.frombuffer(content, np.uint8))
    with pytest.raises(InputError, match="film.npz: not an evidence file") as error:
        folder_of(tmp_path / "film.npz").page_film("film")
    assert "\n" not in str(error.value)
