import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cxr.images import Crop
from cxr.masks import decode_mask
from cxr.pixels.tensors import resize
from saliency.film_maps import film_in_frame, frame_size, to_film_frame

SIZE = 512


def iou_of_perfect_map(mask: np.ndarray, protocol: str) -> float:
    """The mask's own crop as a map, stored, then read as CheXlocalize does: stretched, min-max normalised, > 0.5."""
    crop = Crop.centred(mask.shape[1], mask.shape[0])
    inside = mask[crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]
    stored = to_film_frame(resize(torch.from_numpy(inside)[None].float(), SIZE), crop, protocol)
    stretched = F.interpolate(stored[None], mask.shape, mode="bilinear", align_corners=False)[0, 0].numpy()
    stretched = stretched - stretched.min()
    found = stretched / stretched.max() > 0.5
    return (found & mask).sum() / (found | mask).sum()


def test_a_perfect_map_of_a_real_film_is_scored_as_perfect_in_the_corrected_frame_only(sample):
    codes = json.loads((sample / "gt_segmentations_val.json").read_text())["patient64541_study1_view1_frontal"]
    masks = [mask for mask in map(decode_mask, codes.values()) if mask.any()]
    assert len(masks) == 3 and masks[0].shape == (2320, 2828)
    for mask in masks:
        assert iou_of_perfect_map(mask, "corrected") > 0.98
        assert 0.45 < iou_of_perfect_map(mask, "published") < 0.82


@pytest.mark.parametrize(("width", "height"), [(2828, 2320), (1997, 2021), (600, 1001), (513, 512), (390, 320)])
def test_a_perfect_map_is_scored_as_perfect_whatever_the_films_shape(width, height):
    y, x = np.ogrid[:height, :width]
    mask = (x / width - 0.6) ** 2 * (width / height) ** 2 + (y / height - 0.4) ** 2 < 0.15**2
    assert iou_of_perfect_map(mask, "corrected") > 0.98


@pytest.mark.parametrize(("width", "height"), [(16, 8), (8, 16)])
def test_whole_pixels_are_moved_unchanged(width, height):
    """A film of twice its crop's side: four map pixels lie on each side of the crop's eight."""
    maps = torch.rand(3, 8, 8) + 1
    placed = to_film_frame(maps, Crop.centred(width, height), "corrected")
    assert placed.shape == (3, height, width)
    turned = placed if width > height else placed.mT
    original = maps if width > height else maps.mT
    assert torch.equal(turned[:, :, 4:12], original)
    for label in range(3):
        assert (turned[label, :, :4] == maps[label].min()).all() and (turned[label, :, 12:] == maps[label].min()).all()


def test_fractions_of_a_pixel_are_interpolated_by_hand():
    """A crop of 8 film pixels in 14, at 4 map pixels: the map is 7 wide, the crop starts at 3 film = 1.5 map pixels."""
    maps = torch.tensor([[1.0, 3, 5, 9]]).expand(1, 4, 4)
    placed = to_film_frame(maps, Crop.centred(14, 8), "corrected", fill=-7.0)
    # centres at 0.5 ... 6.5; in the crop from 1.5 to 5.5, so the second lies on its edge, then at 1, 2, 3, and 4 - edge
    assert torch.allclose(placed[0, 0], torch.tensor([-7.0, 1, 2, 4, 7, 9, -7]))


def test_a_brightness_ramp_over_the_film_comes_back_where_it_was():
    """Position itself as the map: what is stored at a place, stretched over the film, must name that place."""
    crop = Crop.centred(2828, 2320)
    centres = (torch.arange(SIZE) + 0.5) * crop.side / SIZE + crop.left
    stored = to_film_frame(centres.expand(1, SIZE, SIZE), crop, "corrected")
    stretched = F.interpolate(stored[None], (2320, 2828), mode="bilinear", align_corners=False)[0, 0, 1000]
    inner = torch.arange(crop.left + 12, crop.left + crop.side - 12)
    assert (stretched[inner] - (inner + 0.5)).abs().max() < 0.05


def test_published_maps_and_square_films_stay_as_they_are():
    maps = torch.rand(2, 8, 8)
    assert torch.equal(to_film_frame(maps, Crop.centred(300, 200), "published"), maps)
    assert torch.equal(to_film_frame(maps, Crop.centred(200, 200), "corrected"), maps)


def test_the_stored_frame_has_the_films_shape():
    assert frame_size(Crop.centred(2828, 2320), 512, "corrected") == (512, 624)
    assert frame_size(Crop.centred(2320, 2828), 512, "corrected") == (624, 512)
    assert frame_size(Crop.centred(2828, 2320), 512, "published") == (512, 512)
    with pytest.raises(ValueError, match="unknown protocol"):
        frame_size(Crop.centred(1, 1), 512, "mirrored")


def test_the_films_pixels_lie_under_the_map():
    film = torch.rand(1, 20, 30)
    crop = Crop.centred(30, 20)
    assert torch.equal(film_in_frame(film, crop, 20, "published"), film[:, :, 5:25])
    assert torch.equal(film_in_frame(film, crop, 20, "corrected"), film)
    assert film_in_frame(film, crop, 10, "corrected").shape == (1, 10, 15)
