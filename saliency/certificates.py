"""Properties of a network's contributions, measured on films instead of assumed.

*Complete*: the contributions of a film's patches sum to its logit. *Local*: a patch's contribution does not change when
other patches do. For both, every film is laid beside composites: some of its patches stay, the others are those of
another film. Contributions that are complete and local are the patches' Shapley values (arXiv 1705.07874). *Linear*:
the logit is an affine function of the patch logits, on which closed forms rely.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from cxr.files import InputError, quoted
from saliency.evidence.folded_network import PatchNetwork, aggregation_name, evaluating, is_linear

COMPOSITES = 4
"""Per film; each keeps another random half of its patches."""

TOLERANCE = 1e-4
"""Of the largest contribution or logit of a label: single precision leaves about 1e-6, what a class does wrong more."""


class ContributingNetwork(PatchNetwork, Protocol):
    """A patch network that says what each patch contributes; `models.patch_net.MedicalPatchNet` does."""

    def patch_logits(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, P, C)."""

    def contributions(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, P, C)."""


@dataclass(frozen=True)
class Certificates:
    """aggregation: name. films: number of films measured. declared_linear: whether its class calls itself linear.

    The errors are the largest over films and labels, as shares of the largest value of the label: |sum of contributions
    - logit|, |contribution in a composite - contribution in the patch's own film|, |logit of the mean of two films'
    patch logits - mean of the two logits|.
    """

    aggregation: str
    films: int
    complete_error: float
    local_error: float
    linear_error: float
    declared_linear: bool = True

    @property
    def complete(self) -> bool:
        return self.complete_error <= TOLERANCE  # written so that NaN fails

    @property
    def local(self) -> bool:
        return self.local_error <= TOLERANCE

    @property
    def linear(self) -> bool:
        """Whether it is declared and holds: films that hardly differ bend no function."""
        return self.declared_linear and self.linear_error <= TOLERANCE

    def to_json(self) -> dict[str, Any]:
        """The errors and the verdicts, as `run.json` and `config.json` hold them."""
        return asdict(self) | {name: getattr(self, name) for name in ("complete", "local", "linear")}

    def __str__(self) -> str:
        complete = "sum to the logit" if self.complete else "do not sum to the logit"
        local = "each depends on its patch alone" if self.local else "each depends on the other patches too"
        return f"contributions ({self.aggregation}) {complete}, {local}"


def measure_certificates(model: ContributingNetwork, images: Tensor) -> Certificates:
    """images: (F, 1, S, S) in [0, 1], films that differ; the composites of each take the patches of the next one.

    A single film is compared with its negative. The model is used as in evaluation and does not change.

    Raises InputError when the aggregation calls itself linear and is not.
    """
    device = next(model.parameters()).device
    donors = images.roll(-1, dims=0) if len(images) > 1 else 1 - images
    rng = torch.Generator().manual_seed(0)
    with evaluating(model), torch.inference_mode():
        pairs = [
            _film_errors(model, film.to(device), donor.to(device), rng)
            for film, donor in zip(images, donors, strict=True)
        ]
    errors, scales = (torch.stack(part).amax(dim=0) for part in zip(*pairs, strict=True))  # (3, C) each
    complete, local, linear = _shares(errors, scales).amax(dim=1).tolist()
    made = Certificates(aggregation_name(model), len(images), complete, local, linear, is_linear(model))
    if made.declared_linear and not made.linear:
        raise InputError(
            f"aggregation {quoted(made.aggregation)} calls itself linear and is not (off by {linear:.1e} of its "
            "logits); set linear=False in its class"
        )
    return made


def _shares(errors: Tensor, scales: Tensor) -> Tensor:
    """Divides errors by scales; 0 where the error is 0, whatever the scale."""
    return torch.where(errors == 0, 0, errors / scales)


def _film_errors(
    model: ContributingNetwork, film: Tensor, donor: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Errors and scales (3, C): completeness, locality, linearity; of two films (1, S, S) and their composites.

    All are one batch: a kernel chosen for another batch size would add rounding of its own.
    """
    k = model.image_size // model.patch_size
    kept = torch.stack(list(_masks(k, rng))).to(film.device)  # (M, k, k), where the film's own patches stay
    pixels = kept.repeat_interleave(model.patch_size, 1).repeat_interleave(model.patch_size, 2)  # (M, S, S)
    images = torch.cat([film[None], donor[None], torch.where(pixels[:, None], film, donor)])  # (2 + M, 1, S, S)
    contributions = model.contributions(images)  # (2 + M, P, C)
    logits = model(images)  # (2 + M, C)
    own = torch.where(kept.flatten(1)[..., None], contributions[0], contributions[1])  # (M, P, C), in the whole films
    moved = (contributions[2:] - own).abs().amax(dim=(0, 1))
    missing = (contributions.sum(dim=1) - logits).abs().amax(dim=0)
    largest = contributions.abs().amax(dim=(0, 1))  # (C,)
    bent, spread = _bending(model, images[:2])
    of_logits = torch.maximum(largest, logits.abs().amax(dim=0))
    return torch.stack([missing, moved, bent]).cpu(), torch.stack([of_logits, largest, spread]).cpu()


def _masks(k: int, rng: torch.Generator) -> Iterator[Tensor]:
    """(k, k) bool, a random half of the places in each; all of them for a single one, which nothing else can change."""
    for _ in range(COMPOSITES):
        order = torch.randperm(k * k, generator=rng).reshape(k, k)
        yield order < max(1, k * k // 2)


def _bending(model: ContributingNetwork, pair: Tensor) -> tuple[Tensor, Tensor]:
    """|logit of the mean patch logits - mean logit| of two films (2, 1, S, S), and the scale of both; (C,) each."""
    aggregation: Any = getattr(model, "aggregation", None)
    patch_logits = model.patch_logits(pair)  # (2, P, C)
    if aggregation is None:
        return torch.zeros_like(patch_logits[0, 0]), torch.ones_like(patch_logits[0, 0])
    logits = aggregation(torch.cat([patch_logits, patch_logits.mean(dim=0, keepdim=True)]))  # (3, C)
    scale = torch.maximum(logits.abs().amax(dim=0), patch_logits.abs().amax(dim=(0, 1)))
    return (logits[2] - logits[:2].mean(dim=0)).abs(), scale
