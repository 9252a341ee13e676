"""The loss of a student against loops over films, patches and labels; shifts pixel by pixel; unfit teachers."""

from __future__ import annotations

import math

import pytest
import torch

from cxr.files import InputError
from models.checkpoint import build_model
from models.patch_net import MedicalPatchNet
from tests.networks import calibrate
from training.distillation import TEACHER_WEIGHT, Distillation, random_shifts, shift_films

PATCH, SIDE, LABELS = 32, 64, ("a", "b", "c")


def network(seed: int, labels=LABELS, backbone="dense32", aggregation="mean") -> MedicalPatchNet:
    torch.manual_seed(seed)
    made = build_model(backbone, patch_size=PATCH, image_size=SIDE, labels=labels, aggregation=aggregation)
    calibrate(made, torch.rand(4, 1, SIDE, SIDE))
    return made


def distillation(teacher: MedicalPatchNet) -> Distillation:
    return Distillation(teacher, LABELS, patch_size=PATCH, image_size=SIDE)


def test_shifted_films_pixel_by_pixel_with_zeros_beyond_the_border():
    films = torch.rand(3, 1, 8, 8) + 1
    shifts = [[0, 0], [-3, 2], [1, -4]]
    found = shift_films(films, shifts)
    for film, moved, (down, right) in zip(films, found, shifts, strict=True):
        for i in range(8):
            for j in range(8):
                inside = 0 <= i + down < 8 and 0 <= j + right < 8
                assert moved[0, i, j] == (film[0, i + down, j + right] if inside else 0)
    assert torch.equal(found[0], films[0])


@pytest.mark.parametrize("patch_size", [1, 4, 5])
def test_shifts_are_those_of_the_maps_each_as_often(patch_size):
    torch.manual_seed(0)
    found = torch.tensor(random_shifts(4000, patch_size))
    expected = torch.arange(patch_size) - patch_size // 2
    for axis in found.T:
        values, counts = axis.unique(return_counts=True)
        assert torch.equal(values, expected)
        assert counts.min() > 0.8 * 4000 / patch_size
    torch.manual_seed(0)
    assert random_shifts(4000, patch_size) == found.tolist()


def slow_loss(student, teacher, images, labels, shifts) -> float:
    """One film, patch and label at a time; the student's batch statistics are left out, as it is in evaluation."""
    shifted = shift_films(images, shifts)
    with torch.no_grad():
        logits, own, wanted = student(images), student.patch_logits(shifted), teacher.patch_logits(shifted)
    errors = [
        (own[film, patch, c].item() - wanted[film, patch, teacher.labels.index(label)].item()) ** 2
        for film in range(len(images))
        for patch in range(own.shape[1])
        for c, label in enumerate(student.labels)
    ]
    entropies = []
    for film in range(len(images)):
        for c in range(len(student.labels)):
            if not labels[film, c].isnan():
                p = 1 / (1 + math.exp(-logits[film, c].item()))
                entropies.append(-math.log(p if labels[film, c] else 1 - p))
    return sum(entropies) / len(entropies) + TEACHER_WEIGHT * sum(errors) / len(errors)


@pytest.mark.parametrize("aggregation", ["mean", "position"])
def test_the_loss_equals_a_loop_with_labels_in_another_order(aggregation):
    student, teacher = network(0, aggregation=aggregation), network(1, ("c", "x", "a", "b"), "timm/test_efficientnet")
    images, labels = torch.rand(3, 1, SIDE, SIDE), torch.tensor([[1.0, 0, 1], [0, torch.nan, 0], [1, 1, torch.nan]])
    taught = distillation(teacher)
    torch.manual_seed(7)
    found = taught.loss(taught.student(student), images, labels)
    torch.manual_seed(7)
    shifts = random_shifts(3, PATCH)
    assert len({tuple(shift) for shift in shifts}) == 3, "every film has its own"
    assert found.item() == pytest.approx(slow_loss(student, teacher, images, labels, shifts), rel=1e-4)


def test_a_student_that_is_its_teacher_has_the_labels_loss_alone_and_unlabelled_films_teach():
    teacher = network(1)
    taught, images = distillation(teacher), torch.rand(2, 1, SIDE, SIDE)
    unknown = torch.full((2, 3), torch.nan)
    assert taught.loss(taught.student(teacher), images, unknown).item() < 1e-10
    student = network(0)
    taught.loss(taught.student(student), images, unknown).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in student.head.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_step_leaves_the_teacher_as_it_was():
    student, teacher = network(0).train(), network(1).train()
    taught = distillation(teacher)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    running = student.state_dict()["features.0.1.running_mean"].clone()
    taught.loss(taught.student(student), torch.rand(2, 1, SIDE, SIDE), torch.ones(2, 3)).backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert not torch.equal(student.state_dict()["features.0.1.running_mean"], running)
    assert set(dict(taught.student(student).named_parameters())) == {
        f"network.{n}" for n, _ in student.named_parameters()
    }


@pytest.mark.parametrize(
    ("sizes", "labels", "said"),
    [
        ((64, 64), LABELS, "a baseline, whose only patch is the whole film of 64 px"),
        ((32, 96), LABELS, "patches of 32 px in films of 96 px, where the student has 32 in 64; give --patch-size 32"),
        ((16, 64), LABELS, "patches of 16 px in films of 64 px, where the student has 32 in 64; give --patch-size 16"),
        ((32, 64), ("a", "c"), "does not know 'b'; its labels are 'a', 'c'"),
        ((32, 64), ("A", "B", "c"), "does not know 'a', 'b'; its labels are 'A', 'B', 'c'"),
    ],
)
def test_teachers_that_cannot_teach_this_network_are_refused_in_one_line(sizes, labels, said):
    teacher = build_model("timm/test_efficientnet", patch_size=sizes[0], image_size=sizes[1], labels=labels)
    with pytest.raises(InputError) as caught:
        distillation(teacher)
    assert said in str(caught.value) and "\n" not in str(caught.value)
