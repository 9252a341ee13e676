"""A film's explanation: its prediction taken apart, its maps, pictures of them, and the files that hold it all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cxr.files import InputError, quoted, replacing, write_json
from cxr.film_folder import LONGEST_FILE_NAME, UniqueNames, shortened
from cxr.labels import positions
from cxr.names import METHODS, RELATIVE
from cxr.pixels.tensors import resize
from saliency.contributions import Contributions
from saliency.relative import Comparison


@dataclass(frozen=True)
class Explanation:
    """A film's prediction and where it comes from.

    parts: logits and contributions. grid: (C, n, n) evidence grid, the logits of the patch at every start; None for a
    baseline. maps: label -> (h, w) float32 in [0, 1] in the film's frame, the shorter side being the network's image
    size: `raw` maps, 0.5 neutral, or for a baseline `gradcam`, 0 neutral. film: (H, W) float32 in [0, 1].
    compared: contributions relative to the average film, and relative: the maps of these, 0.5 neutral, for the labels
    that the weights have a reference of; None and empty without one. errors: label -> estimated mean error of its map
    in percent of the map's range; empty where every start of the grid was computed.
    """

    labels: tuple[str, ...]
    parts: Contributions
    method: str
    grid: np.ndarray | None
    maps: Mapping[str, np.ndarray]
    film: np.ndarray
    compared: Comparison | None = None
    relative: Mapping[str, np.ndarray] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)

    @property
    def probabilities(self) -> dict[str, float]:
        """Label -> probability."""
        return dict(zip(self.labels, self.parts.probabilities.tolist(), strict=True))

    @property
    def contributions(self) -> np.ndarray:
        """(P, C) float64: what each patch adds to each logit; patches in row-major order."""
        return self.parts.values

    def overlay(self, label: str, method: str | None = None) -> Image.Image:
        """The film tinted by the label's map, at the film's size, where the network saw it; bare where it is neutral.

        method: that of `maps` by default, or `relative`. Raises InputError for a label without such a map.
        """
        from reporting.pictures.overlays import tint  # here, for matplotlib's import would delay the first prediction

        seen, method = self._seen, method or self.method
        picture = np.repeat(np.rint(255 * self.film).astype(np.uint8)[..., None], 3, axis=2)  # (H, W, 3)
        picture[seen] = tint(self.film[seen], self._heat(label, method)[seen], signed=METHODS[method].signed)
        return Image.fromarray(picture)

    def picture(self, label: str, method: str | None = None) -> Image.Image:
        """The overlay, and below it label, probability and the meaning of the colours, with their scale."""
        from reporting.pictures.captions import ColourBar, captioned
        from reporting.pictures.overlays import tint_scale

        facts = self.overlay_facts(label, method)
        meaning, ends = f"{METHODS[facts['method']].title}: the redder, the higher", ("least", "most")
        if "full_colour_at_logit" in facts:
            full = f"{facts['full_colour_at_logit']:.2g}"
            meaning = f"{facts['method']} evidence: red for, blue against; full colour at a logit of {full}"
            ends = f"−{full}", f"+{full}"
        probability = f"{label}: probability {self.probabilities[label]:.3f}"
        bar = ColourBar(tint_scale(signed=METHODS[facts["method"]].signed), ends)
        return captioned(self.overlay(label, method), [probability, meaning], bar)

    def overlay_facts(self, label: str, method: str | None = None) -> dict[str, Any]:
        """The meaning of an overlay's colours: `method`, and for evidence the logit at which they are full.

        With `estimated_error_percent`, of the map's range, where evidence between the starts is filled.
        """
        from reporting.pictures.overlays import LOGIT_RANGE, evidence_scale

        method = method or self.method
        if not METHODS[method].signed:
            return {"method": method}
        scale = evidence_scale(self._heat(label, method)[self._seen])
        facts = {"method": method, "full_colour_at_logit": LOGIT_RANGE * scale}
        estimated = method == self.method and label in self.errors
        return facts | ({"estimated_error_percent": self.errors[label]} if estimated else {})

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `explanation.json`, `arrays.npz` (labels, contributions, maps) and pictures of each label.

        With a reference also what is relative to the average film. Each file is written whole or not at all.
        """
        folder, names = Path(folder), UniqueNames()
        arrays = {"labels": np.array(self.labels), "contributions": self.contributions}
        arrays |= {"maps": np.stack([self.maps[label] for label in self.labels])}  # (C, h, w)
        arrays |= {} if self.compared is None else {"relative": self.compared.values}  # (P, C)
        with replacing(folder / "arrays.npz") as temporary, open(temporary, "wb") as handle:
            np.savez(handle, **arrays)
        pictures = {}
        for label in self.labels:
            pictures[label] = f"{names.of(shortened(label, LONGEST_FILE_NAME))}.png"
            save_picture(folder / pictures[label], self.picture(label))
        facts = {"probabilities": self.probabilities, "logits": dict(zip(self.labels, self.parts.logits, strict=True))}
        overlays = {label: {"file": file} | self.overlay_facts(label) for label, file in pictures.items()}
        facts |= {"crop": asdict(self.parts.crop), "overlays": overlays}
        if self.compared is not None:
            facts["relative"] = self._save_relative(self.compared, folder, names)
        write_json(folder / "explanation.json", facts)

    def _save_relative(self, compared_with: Comparison, folder: Path, names: UniqueNames) -> dict[str, Any]:
        """The pictures of the relative maps, and what `explanation.json` says of them."""
        labels = {}
        for label in self.relative:
            row = self.labels.index(label)
            file = f"{names.of(shortened(f'{label}_relative', LONGEST_FILE_NAME))}.png"
            save_picture(folder / file, self.picture(label, RELATIVE))
            numbers = {"average_film": float(compared_with.average[row]), "patches": float(compared_with.sums[row])}
            labels[label] = numbers | {"overlay": {"file": file} | self.overlay_facts(label, RELATIVE)}
        return compared_with.facts() | {"labels": labels}

    @property
    def _seen(self) -> tuple[slice, slice]:
        left, top, right, bottom = self.parts.crop.box
        return np.s_[top:bottom, left:right]

    def _heat(self, label: str, method: str) -> np.ndarray:
        """(H, W): the map at the film's size."""
        positions([label], self.labels, "the network")
        maps = {self.method: self.maps, RELATIVE: self.relative}.get(method, {})
        if label not in maps:
            reason = "the weights have no reference of it (evalClassification.py --all-labels makes that of all labels)"
            raise InputError(f"{quoted(label)}: there is no {method} map of it; {reason}")
        return resize(torch.from_numpy(maps[label])[None], self.film.shape)[0].numpy()  # type: ignore[arg-type]


def save_picture(target: Path, picture: Image.Image) -> None:
    """Writes a PNG without any text in it, atomically."""
    with replacing(target) as temporary:
        picture.save(temporary, format="png", compress_level=3)
