"""The loops: the loss by hand, one step by hand, order of predictions, errors of workers."""

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from chexpert.dataset import CheXpertDataset, read_films
from chexpert.files import InputError
from training.engine import Precision, masked_bce, predict, readable_errors, train_one_epoch


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


def linear_parts(learning_rate=0.1):
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    nn.init.zeros_(net[1].weight)
    nn.init.zeros_(net[1].bias)
    optimizer = torch.optim.SGD(net.parameters(), lr=learning_rate)
    return net, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)


def test_two_steps_by_hand():
    net, optimizer, scheduler = linear_parts()
    batch = (torch.ones(1, 1, 2, 2), torch.ones(1, 1))
    seen = []
    train_one_epoch(net, [batch, batch], optimizer, scheduler, Precision("cpu"), lambda *row: seen.append(row))
    # gradient of every weight and of the bias is sigmoid(z) - 1, with z = sum of weights + bias
    first = 0.1 * 0.5
    z = 5 * first
    second = 0.05 * (1 - 1 / (1 + math.exp(-z)))
    assert net[1].bias.item() == pytest.approx(first + second, rel=1e-6)
    losses, rates = zip(*seen, strict=True)
    assert losses == pytest.approx([math.log(2), math.log(1 + math.exp(-z))])
    assert rates == (0.1, 0.05)


def test_a_loss_that_is_not_finite_stops_before_the_update():
    net, optimizer, scheduler = linear_parts()
    batch = (torch.full((1, 1, 2, 2), float("inf")), torch.ones(1, 1))
    net[1].weight.data.fill_(-1.0)
    with pytest.raises(FloatingPointError, match="became nan"):
        train_one_epoch(net, [batch], optimizer, scheduler, Precision("cpu"), lambda *row: None)
    assert torch.equal(net[1].weight, torch.full((1, 4), -1.0))


def test_predictions_keep_the_order_and_the_mode_is_evaluation():
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(4, 1))
    batches = [(torch.full((2, 1, 2, 2), float(i)), torch.full((2, 1), i)) for i in range(3)]
    logits, labels = predict(net, batches, "cpu")
    assert labels.flatten().tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(logits, net(torch.cat([images for images, _ in batches])))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_film_stops_with_its_row_in_one_line(tiny_chexpert, tmp_path, workers):
    films = read_films(tiny_chexpert / "valid.csv", tiny_chexpert)
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no film")
    broken = type(films)(films.csv, films.rows, films.paths, (*films.files[:3], bad, *films.files[4:]), films.labels)
    loader = DataLoader(CheXpertDataset(broken, 32), batch_size=2, num_workers=workers)
    with pytest.raises(InputError) as caught:
        list(readable_errors(loader))
    assert "\n" not in str(caught.value)
    assert "valid.csv, row 5" in str(caught.value)
    assert str(bad) in str(caught.value)
