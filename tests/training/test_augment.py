"""Augmentation: torchvision's distribution and torchvision's pixels, film by film."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from training.augment import AugmentationParams, crop_and_resize, rotate_and_brighten, sample_augmentation


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_crops_are_distributed_as_torchvisions():
    drawn = [sample_augmentation(0, 1, i, 100, 100) for i in range(4000)]
    torch.manual_seed(0)
    transform = v2.RandomResizedCrop(10, scale=(0.5, 1))
    image = torch.zeros(1, 100, 100)
    theirs = [transform.make_params([image]) for _ in range(4000)]
    for name in ("top", "left", "height", "width"):
        ours = np.array([getattr(d, name) for d in drawn], dtype=float)
        other = np.array([t[name] for t in theirs], dtype=float)
        assert abs(ours.mean() - other.mean()) < 4 * other.std() / np.sqrt(2000), name
        assert abs(ours.std() / other.std() - 1) < 0.06, name
    degrees = np.array([d.degrees for d in drawn])
    brightness = np.array([d.brightness for d in drawn])
    assert -5 <= degrees.min() < -4.9 and 4.9 < degrees.max() <= 5
    assert 0.7 <= brightness.min() < 0.71 and 1.29 < brightness.max() <= 1.3


def test_a_draw_depends_on_seed_epoch_and_film():
    assert sample_augmentation(1, 2, 3, 64, 64) == sample_augmentation(1, 2, 3, 64, 64)
    assert (
        len({sample_augmentation(*key, 64, 64) for key in [(1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4), (3, 2, 1)]}) == 5
    )


def test_a_crop_that_never_fits_gives_the_whole_film():
    # 10 x 1000 pixels: no crop of at least half the area has an aspect ratio within [3/4, 4/3]
    drawn = sample_augmentation(0, 0, 0, 10, 1000)
    assert (drawn.top, drawn.left, drawn.height, drawn.width) == (0, 0, 10, 1000)


@pytest.mark.parametrize("size", [24, 64])  # smaller and larger than the crop
def test_eight_bit_crops_are_those_of_the_published_float_transform(size):
    pixels = noise(60, 50)
    drawn = AugmentationParams(7, 5, 41, 38, 0.0, 1.0)
    film = torch.from_numpy(pixels).unsqueeze(0).float()
    expected = v2.functional.resized_crop(film, 7, 5, 41, 38, [size, size], antialias=True)
    got = crop_and_resize(pixels, drawn, size)
    assert got.dtype == torch.uint8
    assert got.shape == (1, size, size)
    assert (got.float() - expected).abs().max() < 1  # the rounding


@pytest.mark.parametrize("size", [33, 64])
def test_a_batch_is_rotated_and_brightened_as_torchvision_does_film_by_film(size):
    images = torch.from_numpy(noise(5, 1, size, size))
    degrees = torch.tensor([-5.0, -1.3, 0.0, 0.7, 5.0])
    brightness = torch.tensor([0.7, 1.0, 1.3, 1.1, 0.9])
    got = rotate_and_brighten(images, degrees, brightness)
    for image, angle, factor, result in zip(images, degrees, brightness, got, strict=True):
        unit = v2.functional.rotate(image.float() / 255, angle.item())
        expected = v2.functional.adjust_brightness(unit, factor.item()).clamp(0, 1)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


def test_the_neutral_draw_is_the_identity_and_a_quarter_turn_is_counterclockwise():
    images = torch.from_numpy(noise(2, 1, 8, 8))
    turned = rotate_and_brighten(images, torch.tensor([0.0, 90.0]), torch.ones(2))
    torch.testing.assert_close(turned[0], images[0] / 255)
    torch.testing.assert_close(turned[1], torch.rot90(images[1], 1, dims=(1, 2)) / 255)
