"""Augmentation: torchvision's distribution, and a draw that depends on (seed, epoch, index) alone."""

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from chexpert.dataset import CheXpertDataset, read_films
from training.augment import Draw, EpochSampler, TrainingSet, augment, draw


def epoch_of(root, seed, epoch, workers):
    films = read_films(root / "train.csv", root)
    sampler = EpochSampler(len(films), seed)
    sampler.epoch = epoch
    loader = DataLoader(TrainingSet(CheXpertDataset(films, 32), seed), 4, sampler=sampler, num_workers=workers)
    images, labels = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_worker_count_changes_nothing(tiny_chexpert):
    alone, shared = epoch_of(tiny_chexpert, 1, 3, workers=0), epoch_of(tiny_chexpert, 1, 3, workers=2)
    assert torch.equal(alone[0], shared[0])
    assert torch.equal(alone[1], shared[1])


def test_order_changes_no_draw_but_epoch_and_seed_do(tiny_chexpert):
    films = read_films(tiny_chexpert / "train.csv", tiny_chexpert)
    dataset = TrainingSet(CheXpertDataset(films, 32), seed=1)
    forwards = [dataset[3, i][0] for i in range(len(films))]
    backwards = [dataset[3, i][0] for i in reversed(range(len(films)))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert not torch.equal(dataset[4, 0][0], forwards[0])
    assert not torch.equal(TrainingSet(dataset.dataset, seed=2)[3, 0][0], forwards[0])


def test_every_film_once_per_epoch_in_changing_order():
    sampler = EpochSampler(50, seed=7)
    orders = []
    for epoch in (1, 2, 1):
        sampler.epoch = epoch
        keys = list(sampler)
        assert {e for e, _ in keys} == {epoch}
        orders.append([index for _, index in keys])
    assert sorted(orders[0]) == list(range(50))
    assert orders[0] == orders[2] != orders[1]


def test_crops_are_distributed_as_torchvisions():
    drawn = [draw(0, 1, i, 100, 100) for i in range(4000)]
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


def test_a_crop_that_never_fits_gives_the_whole_film():
    # 10 x 1000 pixels: no crop of at least half the area has an aspect ratio within [3/4, 4/3]
    drawn = draw(0, 0, 0, 10, 1000)
    assert (drawn.top, drawn.left, drawn.height, drawn.width) == (0, 0, 10, 1000)


def test_the_neutral_draw_only_resizes_and_brightness_multiplies():
    image = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.5
    expected = v2.functional.resize(image, [32, 32], antialias=True)
    torch.testing.assert_close(augment(image, Draw(0, 0, 64, 64, 0.0, 1.0), 32), expected)
    torch.testing.assert_close(augment(image, Draw(0, 0, 64, 64, 0.0, 1.2), 32), expected * 1.2)
    assert augment(image + 0.5, Draw(0, 0, 64, 64, 0.0, 1.3), 32).max() == 1
