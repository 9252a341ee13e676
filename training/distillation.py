"""Distillation: a trained patch network teaches another one its patch logits, at one random shift per film and step.

    loss = binary cross entropy of the films + TEACHER_WEIGHT * mean over films, patches and labels of (s - t)^2

with the patch logits s of the student and t of the teacher for the same shifted, augmented film. The student is
computed once on films and shifted films together, so that batch normalisation sees both. Matching logits is the limit
of distillation at a high temperature (Hinton et al., arXiv 1503.02531, section 2.1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxr.files import InputError, quoted
from training.engine import masked_bce

TEACHER_WEIGHT = 0.1
"""With it, and errors of about 1, a patch logit's gradient from the teacher is as large as that from the labels."""


class Distillation:
    """A teacher in evaluation mode, and the loss of its student.

    teacher: a network as `models.patch_net.MedicalPatchNet`, on the student's device. labels: those of the student, to
    which the teacher's outputs are matched by name; what else the teacher knows is left out.

    Raises InputError for a teacher of another patch or image size, a baseline, and a label that it does not know.
    """

    def __init__(self, teacher: nn.Module, labels: Sequence[str], *, patch_size: int, image_size: int) -> None:
        _check(teacher, labels, patch_size, image_size)
        self.teacher = teacher.eval().requires_grad_(False)
        self.patch_size = patch_size
        known: Sequence[str] = teacher.labels  # type: ignore[assignment]
        columns = [list(known).index(label) for label in labels]
        self.columns = torch.tensor(columns, device=next(teacher.parameters()).device)

    def student(self, network: nn.Module) -> nn.Module:
        """Wraps the network that is trained, for `loss`; its parameters stay the network's own."""
        return _Student(network)

    def loss(self, student: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """images (B, 1, S, S) in [0, 1] and labels (B, C), NaN where unknown -> the loss, a scalar.

        student: what `student` gives, possibly compiled or distributed. Shifts are drawn from torch's generator.
        """
        shifted = shift_films(images, random_shifts(len(images), self.patch_size))
        with torch.no_grad():
            known: Tensor = self.teacher.patch_logits(shifted)  # type: ignore[operator]  # (B, P, labels it knows)
        wanted = known.index_select(2, self.columns)  # (B, P, C)
        film_logits, patch_logits = student(images, shifted)
        error = F.mse_loss(patch_logits.float(), wanted.float())
        return masked_bce(film_logits.float(), labels) + TEACHER_WEIGHT * error


class _Student(nn.Module):
    """Films and shifted films (B, 1, S, S) each -> film logits (B, C) of the first, patch logits (B, P, C) of the
    second; both in one forward pass, which is what averages gradients over processes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, films: Tensor, shifted: Tensor) -> tuple[Tensor, Tensor]:
        both = self.network.patch_logits(torch.cat([films, shifted]))  # type: ignore[operator]  # (2B, P, C)
        own, of_shifted = both.chunk(2)
        return self.network.aggregation(own), of_shifted  # type: ignore[operator]


def random_shifts(count: int, patch_size: int) -> list[list[int]]:
    """Starts of the patch grid, down and right, per film: whole pixels in [-p // 2, p - p // 2), as maps use them."""
    return (torch.randint(patch_size, (count, 2)) - patch_size // 2).tolist()


def shift_films(images: Tensor, shifts: Sequence[Sequence[int]]) -> Tensor:
    """(B, 1, S, S) -> (B, 1, S, S): pixel (i, j) of the result is (i + down, j + right) of the film, 0 beyond it."""
    size = images.shape[-1]
    most = max((abs(pixels) for shift in shifts for pixels in shift), default=0)
    padded = F.pad(images, [most] * 4)
    starts = [(most + down, most + right) for down, right in shifts]
    windows = [film[:, i : i + size, j : j + size] for film, (i, j) in zip(padded, starts, strict=True)]
    return torch.stack(windows)


def _check(teacher: nn.Module, labels: Sequence[str], patch_size: int, image_size: int) -> None:
    own, side = int(teacher.patch_size), int(teacher.image_size)  # type: ignore[arg-type]
    if own == side:
        raise InputError(f"a baseline, whose only patch is the whole film of {side} px; a patch network is needed")
    if (own, side) != (patch_size, image_size):
        sizes = f"patches of {own} px in films of {side} px, where the student has {patch_size} in {image_size}"
        raise InputError(f"{sizes}; give --patch-size {own} --image-size {side}, or another teacher")
    known: Sequence[str] = list(teacher.labels)  # type: ignore[arg-type]
    unknown = [quoted(label) for label in labels if label not in known]
    if unknown:
        raise InputError(f"does not know {', '.join(unknown)}; its labels are {', '.join(map(quoted, known))}")
