"""What training reads: the same batches whatever the workers, the place to start from, and the number of processes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from cxr.dataset import FilmDataset
from cxr.files import InputError
from cxr.manifests.films import read_films
from training.loader import PartSampler, Sample, TrainingSet, collate


def batches(root, *, workers=0, epoch=3, first_step=0, seed=1, **sampler_options):
    films = read_films(root / "train.csv", root)
    sampler = PartSampler(len(films), 4, seed, **sampler_options)
    sampler.epoch, sampler.first_step = epoch, first_step
    dataset = TrainingSet(FilmDataset(films, 32), seed)
    return list(DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, num_workers=workers))


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one[:5], other[:5], strict=True))


def test_worker_count_changes_nothing(tiny_chexpert):
    alone, shared = batches(tiny_chexpert), batches(tiny_chexpert, workers=2)
    assert len(alone) == 3
    assert all(same(a, b) for a, b in zip(alone, shared, strict=True))


def test_the_rest_of_an_epoch_is_the_rest_of_its_batches(tiny_chexpert):
    whole, rest = batches(tiny_chexpert), batches(tiny_chexpert, first_step=2, workers=1)
    assert len(rest) == 1
    assert same(whole[2], rest[0])


def test_seed_and_epoch_change_films_and_draws(tiny_chexpert):
    first = batches(tiny_chexpert)[0]
    for other in (batches(tiny_chexpert, epoch=4)[0], batches(tiny_chexpert, seed=2)[0]):
        assert not torch.equal(first.films, other.films)
        assert not torch.equal(first.degrees, other.degrees)


def test_labels_and_pixels_belong_to_the_film(tiny_chexpert):
    films = read_films(tiny_chexpert / "train.csv", tiny_chexpert)
    for batch in batches(tiny_chexpert):
        assert torch.equal(batch.labels, torch.from_numpy(films.labels[batch.films.numpy()]))
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape == (4, 1, 32, 32)
        assert not batch.unreadable


@pytest.mark.parametrize("world", [1, 2, 4])
def test_processes_share_the_parts_of_each_step(world):
    """Film numbers of every (step, part), put together from all processes, against a plain cut of the order."""
    films, per_step, parts = 50, 8, 4
    order = np.random.default_rng((7, 2)).permutation(films).tolist()
    expected = [order[i : i + 2] for i in range(0, 48, 2)]  # 6 steps of 4 parts of 2 films
    found = {}
    for rank in range(world):
        sampler = PartSampler(films, per_step, 7, parts, rank, world)
        sampler.epoch = 2
        own = list(sampler)
        assert len(own) == len(sampler) == 24 // world
        for number, keys in enumerate(own):
            step, of_step = divmod(number, parts // world)
            found[step * parts + rank + of_step * world] = [index for _, index in keys]
            assert {epoch for epoch, _ in keys} == {2}
    assert [found[i] for i in range(24)] == expected


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="do not divide evenly"):
        PartSampler(50, 8, 0, parts=3)
    with pytest.raises(ValueError, match="do not divide evenly"):
        PartSampler(50, 8, 0, parts=2, world_size=4)


def test_an_unreadable_film_stops_or_is_left_out_and_nothing_takes_its_place(tiny_chexpert, tmp_path):
    films = read_films(tiny_chexpert / "valid.csv", tiny_chexpert)
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no film")
    broken = replace(films, files=(*films.files[:3], bad, *films.files[4:]))
    with pytest.raises(InputError, match=r"valid\.csv, line 5: .*bad\.jpg"):
        TrainingSet(FilmDataset(broken, 32), 0)[1, 3]
    skipping = TrainingSet(FilmDataset(broken, 32), 0, "skip")
    batch = collate([skipping[1, i] for i in (2, 3, 5)])
    assert batch.films.tolist() == [2, 5]
    assert len(batch.images) == len(batch.labels) == len(batch.degrees) == len(batch.brightness) == 2
    assert list(batch.unreadable) == [3]
    assert "valid.csv, line 5" in batch.unreadable[3]
    with pytest.raises(InputError, match="no film of a batch could be read; the first: gone"):
        collate([Sample(0, films.labels[0], 0.0, error="gone")])
