"""Several processes as one: what they tell each other, and that two halves of a step are the whole step."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from cxr.files import InputError
from tests.training_runs import together
from training.distributed import SINGLE_PROCESS, BatchNormStatistics, ProcessGroup, process_group
from training.engine import Precision, Stepper
from training.loader import Batch


def told(group):
    """What every process hears of the others."""
    refused = ""
    try:
        group.require_equal("--data x", group.rank)
    except InputError as error:
        refused = str(error)
    group.require_equal("--data x", {"same": [1, 2]})
    return {
        "highest": group.all_reduce_max([group.rank, -group.rank, 0.5]),
        "mean": group.all_reduce_mean(torch.tensor([1.0, 2.0]) * (group.rank + 1)),
        "all": group.all_gather({"rank": group.rank}),
        "share": group.broadcast({"tensor": torch.arange(3) + group.rank})["tensor"],
        "refused": refused,
    }


def test_processes_hear_each_other(tmp_path):
    first, second = together(told, 2, tmp_path)
    for heard, other in ((first, 1), (second, 0)):
        assert heard["highest"] == [1, 0, 0.5]
        assert heard["mean"].tolist() == [1.5, 3.0]
        assert heard["all"] == [{"rank": 0}, {"rank": 1}]
        assert heard["share"].tolist() == [0, 1, 2]
        assert heard["refused"].startswith(f"--data x: process {other} has others than process {1 - other}")


def test_one_process_alone_hears_itself():
    assert SINGLE_PROCESS.all_reduce_max([3, 4]) == [3, 4]
    assert SINGLE_PROCESS.all_gather("x") == ["x"]
    assert SINGLE_PROCESS.broadcast("x") == "x"
    assert torch.equal(SINGLE_PROCESS.all_reduce_mean(torch.ones(2)), torch.ones(2))
    SINGLE_PROCESS.require_equal("nothing", 1)
    SINGLE_PROCESS.barrier()


@pytest.mark.parametrize("count", [1, 7, 12, 13])
@pytest.mark.parametrize("world", [1, 2, 5])
def test_every_film_is_predicted_once_in_the_batches_of_one_process(count, world):
    alone = [list(range(start, min(start + 3, count))) for start in range(0, count, 3)]
    shares = [ProcessGroup(rank, world).shard_batches(count, 3) for rank in range(world)]
    assert sorted(batch for share in shares for batch in share) == alone
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def gathered(group):
    own = [[4, 0, 2], [1, 3], []][group.rank]
    rows = torch.tensor([[10.0 * index, index] for index in own]).reshape(-1, 2)
    result = group.gather_rows(rows, own, 5)
    twice = ""
    try:
        group.gather_rows(rows[:1], own[:1], 5)
    except ValueError as error:
        twice = str(error)
    return {"rows": result, "twice": twice}


def test_rows_are_gathered_by_index_and_none_may_be_missing(tmp_path):
    for result in together(gathered, 3, tmp_path):
        assert torch.equal(result["rows"], torch.tensor([[10.0 * index, index] for index in range(5)]))
        assert result["twice"] == "2 rows with 2 different numbers, where 5 are needed"


def network():
    """With all that makes a step more than a sum over films: batch statistics and dropped values."""
    torch.manual_seed(0)
    convolutions = (nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4, momentum=0.3), nn.ReLU(), nn.Dropout(0.3))
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(4 * 36, 2))


def part(step, number):
    drawn = torch.Generator().manual_seed(100 * step + number)
    films = 2 + number  # parts of different size count alike
    return Batch(
        images=torch.randint(0, 256, (films, 1, 8, 8), dtype=torch.uint8, generator=drawn),
        labels=torch.randint(0, 2, (films, 2), generator=drawn).float(),
        degrees=torch.zeros(films),
        brightness=torch.ones(films),
        films=torch.arange(films),
        unreadable={},
        seconds=0.0,
    )


def trained(group, parts=4, steps=3):
    """Losses and network after some steps of `parts` parts, of which this process takes every `world`-th."""
    net = network()
    model = group.wrap_model(net, "cpu")
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, fused=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps + 1)
    stepper = Stepper(model, optimizer, scheduler, Precision("cpu"), seed=3, group=group)
    for step in range(steps):
        stepper.step([part(step, number) for number in range(group.rank, parts, group.world_size)])
    return {"losses": [row.loss for row in stepper.read()], "state": net.state_dict()}


@pytest.mark.parametrize("world", [2, 4])
def test_processes_make_the_step_of_one_that_takes_all_parts(world, tmp_path):
    alone = trained(SINGLE_PROCESS)
    for result in together(trained, world, tmp_path):
        assert result["losses"] == pytest.approx(alone["losses"], rel=0, abs=1e-6)
        for name, tensor in alone["state"].items():
            torch.testing.assert_close(result["state"][name], tensor, rtol=1e-5, atol=1e-6, msg=name)


def statistics(group):
    """Running statistics after each process has seen one part, its own."""
    net = network()
    with BatchNormStatistics(net, group).in_turn():
        net(part(0, group.rank).images / 255)
    return net.state_dict()


def test_running_statistics_are_those_of_the_parts_one_after_the_other(tmp_path):
    net = network()
    for rank in range(3):
        net(part(0, rank).images / 255)
    for state in together(statistics, 3, tmp_path):
        assert state["1.num_batches_tracked"] == 3
        for name in ("1.running_mean", "1.running_var"):
            torch.testing.assert_close(state[name], net.state_dict()[name], rtol=1e-5, atol=1e-7)


def one_by_one(net, group, images):
    """The formula of `BatchNormStatistics`, statistic by statistic; its running values must be the same bits."""
    layers = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    buffers = [(value, layer.momentum) for layer in layers for value in (layer.running_mean, layer.running_var)]
    before = [value.clone() for value, _ in buffers]
    net(images)
    for (value, momentum), old in zip(buffers, before, strict=True):
        keep = torch.full_like(value, 1 - momentum)
        total = keep ** (group.world_size - 1 - group.rank) * (value - keep * old)
        dist.all_reduce(total)
        value.copy_(keep**group.world_size * old + total)
    for layer in layers:
        layer.num_batches_tracked += group.world_size - 1


def deep_network(layers):
    torch.manual_seed(1)
    convolutions = [nn.Conv2d(1, 5, 3, padding=1)]
    for number in range(layers):
        convolutions += [nn.BatchNorm2d(5, momentum=0.1 + number / 100), nn.Conv2d(5, 5, 3, padding=1)]
    return nn.Sequential(*convolutions)


class Counting(TorchDispatchMode):
    """Counts the operations that are run within it, and the collectives among them."""

    def __init__(self):
        super().__init__()
        self.operations = self.collectives = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.operations += 1
        self.collectives += function.namespace == "c10d"
        return function(*args, **(kwargs or {}))


def counted(layers, group, part):
    """Operations and collectives that the statistics of a part cost beside its forward pass."""
    net = deep_network(layers)
    statistics = BatchNormStatistics(net, group)
    with Counting() as alone:
        net(part)
    with statistics.in_turn():  # the first part makes what all others need
        net(part)
    with Counting() as count, statistics.in_turn():
        net(part)
    return count.operations - alone.operations, count.collectives


def flat_and_one_by_one(group):
    parts = torch.rand(3, 2, 4, 1, 8, 8, generator=torch.Generator().manual_seed(2))[:, group.rank]
    flat, plain = deep_network(6), deep_network(6)
    statistics = BatchNormStatistics(flat, group)
    for images in parts:
        with statistics.in_turn():
            flat(images)
        one_by_one(plain, group, images)
    same = all(torch.equal(a, b) for a, b in zip(flat.buffers(), plain.buffers(), strict=True))
    return {"same": same, "moved": float(flat[1].running_mean.abs().max()), "tracked": int(flat[1].num_batches_tracked),
            "few": counted(2, group, parts[0]), "many": counted(30, group, parts[0])}  # fmt: skip


def test_flat_statistics_are_the_same_bits_in_one_collective_however_many_layers(tmp_path):
    for result in together(flat_and_one_by_one, 2, tmp_path):
        assert result["same"] and result["moved"] > 0 and result["tracked"] == 6
        assert result["few"] == result["many"] and result["many"][0] < 20 and result["many"][1] == 1


class WithBuffer(nn.Sequential):
    """A network with a buffer that is not batch normalisation's and differs between processes."""

    def __init__(self, group):
        super().__init__(*network())
        self.register_buffer("drift", torch.zeros(1))
        self.rank = group.rank

    def forward(self, x):
        self.drift += self.rank
        return super().forward(x)


def collectives_of_steps(group):
    """Collectives of three steps, each of one part, after the one that builds the buckets."""
    counts = {}
    for name, net in (("plain", network()), ("buffer", WithBuffer(group))):
        model = group.wrap_model(net, "cpu")
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        statistics = BatchNormStatistics(model, group)
        for number in range(4):
            with Counting() as count, statistics.in_turn():
                model(part(number, group.rank).images / 255).sum().backward()
            optimizer.step()
        counts[name] = count.collectives
        counts[f"{name} buffers"] = torch.cat([buffer.flatten().float() for buffer in net.buffers()])
    return counts


def test_buffers_are_broadcast_only_where_statistics_are_not_all(tmp_path):
    """One collective for the statistics, one for the gradients of so small a network; one more per dtype of buffers."""
    first, second = together(collectives_of_steps, 2, tmp_path)
    assert torch.equal(first["plain buffers"], second["plain buffers"])
    assert (first["plain"], first["buffer"]) == (2, 4)


def test_a_start_without_addresses_is_refused(monkeypatch):
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(InputError, match="RANK, MASTER_ADDR, MASTER_PORT is not; start with torchrun"),
        process_group("cpu"),
    ):
        pass


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("WORLD_SIZE", "two\n", "WORLD_SIZE='two\\n' is not a whole number"),
        ("WORLD_SIZE", "-1", "WORLD_SIZE='-1' is not a whole number"),
        ("RANK", "9" * 5000, "is not a whole number"),
        ("RANK", "2", "RANK=2 is not below WORLD_SIZE=2"),
    ],
)
def test_wrong_variables_are_one_line(variable, value, words, monkeypatch):
    right = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, text in (right | {variable: value}).items():
        monkeypatch.setenv(name, text)
    with pytest.raises(InputError) as caught, process_group("cpu"):
        pass
    assert words in str(caught.value) and str(caught.value).isprintable()
