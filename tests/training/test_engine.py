"""The step and prediction: the loss by hand, updates against a plain loop, errors before an update."""

import math
import os
import time
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import training.workers
from cxr.dataset import FilmDataset
from cxr.files import InputError
from cxr.manifests.films import read_films
from training.augment import rotate_and_brighten
from training.engine import NotFiniteError, Precision, Stepper, masked_bce, one_cycle, predict, predict_films
from training.loader import Batch
from training.workers import plain_failures


def test_masked_bce_by_hand_and_without_known_labels():
    logits = torch.tensor([[0.0, 2.0, -1.0]])
    labels = torch.tensor([[1.0, float("nan"), 0.0]])
    expected = (math.log(2) + math.log(1 + math.exp(-1))) / 2
    assert masked_bce(logits, labels).item() == pytest.approx(expected)
    nothing = torch.full((1, 3), float("nan"))
    logits.requires_grad_()
    loss = masked_bce(logits, nothing)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(1, 3))


def test_without_unknown_labels_it_is_torchs_loss():
    logits, labels = torch.randn(5, 14), torch.randint(0, 2, (5, 14)).float()
    torch.testing.assert_close(masked_bce(logits, labels), nn.BCEWithLogitsLoss()(logits, labels))


def rates(scheduler, optimizer, steps):
    """Learning rate and first momentum of every step."""
    found = []
    for _ in range(steps):
        group = optimizer.param_groups[0]
        found.append((scheduler.get_last_lr()[0], group["betas"][0]))
        optimizer.step()
        scheduler.step()
    return found


def one_cycle_by_hand(step, total, highest=0.1):
    """Cosine from highest / 25 up to `highest` in 5% of the steps, then down to highest / 25e4 (Smith and Topin)."""
    peak, last = 0.05 * total - 1, total - 1
    if step < peak:
        low, high, share = highest / 25, highest, step / peak
    else:
        low, high, share = highest, highest / 25e4, (step - peak) / (last - peak)
    return high + (low - high) / 2 * (1 + math.cos(math.pi * share))


@pytest.mark.parametrize("total", range(1, 201))
def test_the_schedule_is_torchs_for_any_number_of_steps(total):
    def fresh():
        return torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=0.1)

    optimizer, other = fresh(), fresh()
    found = rates(one_cycle(optimizer, 0.1, total), optimizer, total)
    assert [rate for rate, _ in found] == pytest.approx([one_cycle_by_hand(i, total) for i in range(total)], rel=1e-9)
    try:
        theirs = torch.optim.lr_scheduler.OneCycleLR(other, max_lr=0.1, total_steps=total, pct_start=0.05)
    except ZeroDivisionError:
        assert total == 20
        assert found[0][0] == max(found)[0] == 0.1
    else:
        assert found == rates(theirs, other, total)  # to the last bit


def white(count, labels, first=0):
    """A batch of white films, which stay white: not rotated, not brightened."""
    return Batch(
        images=torch.full((count, 1, 2, 2), 255, dtype=torch.uint8),
        labels=labels,
        degrees=torch.zeros(count),
        brightness=torch.ones(count),
        films=torch.arange(first, first + count),
        unreadable={},
        seconds=0.0,
    )


def linear_stepper(rate=0.1, precision="fp32"):
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    nn.init.zeros_(net[1].weight)
    nn.init.zeros_(net[1].bias)
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, fused=True)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    return net, Stepper(net, optimizer, scheduler, Precision("cpu", precision), seed=0)


def test_two_steps_by_hand():
    net, stepper = linear_stepper()
    for _ in range(2):
        stepper.step([white(1, torch.ones(1, 1))])
    assert stepper.unread == 2
    rows = stepper.read()
    assert stepper.unread == 0
    # gradient of every weight and of the bias is sigmoid(z) - 1, with z = sum of weights + bias
    first = 0.1 * 0.5
    z = 5 * first
    gradient = 1 - 1 / (1 + math.exp(-z))
    assert net[1].bias.item() == pytest.approx(first + 0.05 * gradient, rel=1e-6)
    assert [row.step for row in rows] == [1, 2]
    assert [row.loss for row in rows] == pytest.approx([math.log(2), math.log(1 + math.exp(-z))])
    assert [row.learning_rate for row in rows] == [0.1, 0.05]
    assert [row.grad_norm for row in rows] == pytest.approx([math.sqrt(5) * 0.5, math.sqrt(5) * gradient])


def test_parts_count_alike_and_make_one_update():
    net, stepper = linear_stepper()
    stepper.step([white(1, torch.ones(1, 1)), white(3, torch.zeros(3, 1))])
    (row,) = stepper.read()
    assert net[1].bias.item() == 0  # the mean of -0.5 and +0.5
    assert row.step == 1
    assert row.grad_norm == 0


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 1),
        nn.Flatten(),
        nn.Linear(8 * 36, 3),
    )


def random_batch(seed, labels=3):
    drawn = torch.Generator().manual_seed(seed)
    return Batch(
        images=torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8, generator=drawn),
        labels=torch.randint(0, 2, (6, labels), generator=drawn).float(),
        degrees=torch.linspace(-5, 5, 6),
        brightness=torch.linspace(0.7, 1.3, 6),
        films=torch.arange(6),
        unreadable={},
        seconds=0.0,
    )


def adamw_stepper(net, total=5, **options):
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, fused=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=total)
    return Stepper(net, optimizer, scheduler, Precision("cpu", **options), seed=3)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_steps_are_those_of_a_plain_loop(memory_format):
    net, plain = small_net().to(memory_format=memory_format), small_net()
    stepper = adamw_stepper(net)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-2, foreach=False)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=5)
    for step in range(4):
        batch = random_batch(step)
        stepper.step([batch])
        logits = plain(rotate_and_brighten(batch.images, batch.degrees, batch.brightness))
        loss = F.binary_cross_entropy_with_logits(logits, batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        assert stepper.read()[0].loss == pytest.approx(loss.item(), rel=1e-5)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], tensor, rtol=1e-3, atol=1e-5)


def test_random_numbers_of_a_step_do_not_depend_on_what_was_drawn_before():
    weights = []
    for draws in (0, 5):
        net = nn.Sequential(small_net(), nn.Dropout(0.5))
        stepper = adamw_stepper(net)
        for step in range(2):
            torch.rand(draws)
            stepper.step([random_batch(step), random_batch(step + 10)])
        weights.append(net.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(("broken", "precision"), [("loss", "fp32"), ("gradient", "fp32"), ("loss", "fp16")])
def test_what_is_not_finite_stops_before_the_update_and_names_step_and_films(broken, precision):
    net, stepper = linear_stepper(precision=precision)
    stepper.step([white(1, torch.ones(1, 1))])
    kept = net[1].weight.clone()
    if broken == "loss":
        bad = white(2, torch.ones(2, 1), first=5)._replace(brightness=torch.tensor([1.0, float("nan")]))
    else:
        net[1].bias.register_hook(lambda gradient: gradient * float("inf") if stepper.steps == 1 else gradient)
        bad = white(2, torch.ones(2, 1), first=5)
    stepper.step([bad])
    stepper.step([white(1, torch.ones(1, 1), first=9)])  # a step later, before anybody has looked
    with pytest.raises(NotFiniteError, match="step 2: loss") as caught:
        stepper.read()
    assert caught.value.films == [5, 6]
    assert torch.equal(net[1].weight, kept)


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_half_precision_learns_as_single_precision_does(name):
    losses = {}
    for precision in ("fp32", name):
        stepper = adamw_stepper(small_net(), total=31, name=precision)
        for _ in range(30):
            stepper.step([random_batch(0)])
        losses[precision] = [row.loss for row in stepper.read()]
    assert losses["fp32"][-1] < 0.2 * losses["fp32"][0]
    assert losses[name][0] == pytest.approx(losses["fp32"][0], rel=0.02)
    assert losses[name][-1] < 0.3 * losses["fp32"][0]


def test_an_overflow_in_float16_lowers_the_scale_and_leaves_the_update_out():
    net = small_net()
    stepper = adamw_stepper(net, name="fp16")
    stepper.precision.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    before = net[0].weight.clone()
    stepper.step([random_batch(0)])
    (row,) = stepper.read()
    assert not math.isfinite(row.grad_norm)
    assert torch.equal(net[0].weight, before)
    assert stepper.precision.scaler.get_scale() == 2.0**59


def test_predictions_keep_the_order_and_the_mode_is_evaluation():
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(4, 1))
    batches = [(torch.full((2, 1, 2, 2), float(i)), torch.full((2, 1), i)) for i in range(3)]
    logits, labels = predict(net, batches, "cpu")
    assert labels.flatten().tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(logits, net(torch.cat([images for images, _ in batches])))


def test_films_are_predicted_in_the_order_of_the_dataset(tiny_chexpert):
    films = read_films(tiny_chexpert / "valid.csv", tiny_chexpert)
    dataset = FilmDataset(films, 16)
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, 2))
    logits = predict_films(net, dataset, "cpu", batch_size=4, workers=1)
    with torch.no_grad():
        expected = torch.cat([net(dataset.image(i)[0].unsqueeze(0)) for i in range(len(dataset))])
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_film_stops_with_its_row_in_one_line(tiny_chexpert, tmp_path, workers):
    films = read_films(tiny_chexpert / "valid.csv", tiny_chexpert)
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no film")
    broken = replace(films, files=(*films.files[:3], bad, *films.files[4:]))
    loader = DataLoader(FilmDataset(broken, 32), batch_size=2, num_workers=workers)
    with pytest.raises(InputError) as caught, plain_failures():
        list(loader)
    assert "\n" not in str(caught.value)
    assert "valid.csv, line 5" in str(caught.value)
    assert str(bad) in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("Caught _ArrayMemoryError in DataLoader worker process 0.\nTraceback ..."),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    ],
)
def test_a_lack_of_memory_is_one_line_that_names_the_options(error):
    with pytest.raises(InputError, match="^out of memory; lower --batch-size") as caught, plain_failures():
        raise error
    assert "\n" not in str(caught.value)


def test_a_second_report_of_a_dead_worker_hides_nothing(monkeypatch):
    """torch's handler of SIGCHLD may raise again while the workers are being ended."""
    calls = []

    def ending():
        calls.append(len(calls))
        if len(calls) == 1:
            raise RuntimeError("DataLoader worker (pid 2) is killed by signal: Killed.")

    monkeypatch.setattr(training.workers, "end_workers", ending)
    with pytest.raises(ChildProcessError, match="a worker process died.*pid 1"), plain_failures():
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")
    assert calls == [0, 1]


def test_a_batch_that_no_memory_holds_is_one_line():
    with pytest.raises(InputError, match="out of memory"), plain_failures():
        torch.empty(2**50)


def test_a_reader_of_our_output_that_goes_away_is_no_worker():
    with pytest.raises(BrokenPipeError), plain_failures():
        raise BrokenPipeError(32, "Broken pipe")
    with pytest.raises(ChildProcessError), plain_failures():
        raise ConnectionResetError(104, "Connection reset by peer")


class Troubled(Dataset):
    """Its worker dies, or hangs, at film 2."""

    def __init__(self, trouble):
        self.trouble = trouble

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 2:
            os._exit(1) if self.trouble == "dies" else time.sleep(600)
        return torch.zeros(1)


@pytest.mark.parametrize(
    ("trouble", "error", "words"), [("dies", ChildProcessError, "died"), ("hangs", TimeoutError, "hangs")]
)
def test_a_worker_that_dies_or_hangs_is_one_line(trouble, error, words):
    loader = DataLoader(Troubled(trouble), batch_size=1, num_workers=1, timeout=2)
    started = time.monotonic()
    with pytest.raises(error, match=words) as caught, plain_failures():
        list(loader)
    assert "\n" not in str(caught.value).strip()
    assert time.monotonic() - started < 30
