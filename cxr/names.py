"""Names that stand in more than one file: heat-map methods, protocols, splits, and the files of a results folder."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Protocol = Literal["published", "corrected"]
PROTOCOLS: tuple[Protocol, ...] = ("corrected", "published")
"""`published` repeats the published code bug for bug, so that the paper's tables can be reproduced: the broadcast bug
of its scaled maps, fading borders, and a square map stretched over the film's rectangle. `corrected` is the default
everywhere else."""

DEFAULT_STRIDE = 3
FILM_STRIDE = 9
"""Pixels between the starts of the evidence of whole data sets, and of single films, which somebody waits for;
`benchmarks/bench_stride.py` measures the error."""

Network = Literal["patch", "baseline"]


@dataclass(frozen=True)
class Method:
    """A kind of heat map.

    name: its folder. title: as the paper's tables print it. network: the one it explains. signed: whether 0.5 is
    neutral and less is evidence against (else 0 is the least and 1 the most). in_paper: whether the paper's Tables 2
    and 3 have it. protocols: those that it has maps of.
    """

    name: str
    title: str
    network: Network
    signed: bool
    in_paper: bool = True
    protocols: tuple[Protocol, ...] = PROTOCOLS


RELATIVE = "relative"
"""The method that compares a film with the mean validation film."""

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("scaled", "MedicalPatchNet (Scaled)", "patch", signed=True),
        Method("raw", "MedicalPatchNet (Raw)", "patch", signed=True),
        Method(RELATIVE, "MedicalPatchNet (Relative)", "patch", signed=True, in_paper=False, protocols=("corrected",)),
        Method("gradcam", "Grad-CAM", "baseline", signed=False),
        Method("gradcam++", "Grad-CAM++", "baseline", signed=False),
        Method("eigencam", "Eigen-CAM", "baseline", signed=False),
    )
}
"""In the order of the paper's columns. A new method is a row here and a function in `saliency`."""


POSTERIOR = "posterior"
_POSTERIOR = Method(
    POSTERIOR,
    "Relative × prior (validation masks, no explanation)",
    "patch",
    signed=False,
    in_paper=False,
    protocols=("corrected",),
)
LOCALIZED: Mapping[str, Method] = ChainMap({POSTERIOR: _POSTERIOR}, METHODS)
"""All that is scored against the masks: the methods, and relative maps times the mean validation mask. The latter looks
where lesions were outlined before, so it is not an explanation of the network; no film has a stored map of it."""


CHANCE, CENTRE, PRIOR, SHUFFLED = "chance", "centre", "prior", "shuffled"
WITH_PRIOR, SHUFFLED_WITH_PRIOR = "with_prior", "shuffled_with_prior"
CONTROLS: dict[str, str] = {
    CHANCE: "Chance (mask area)",
    CENTRE: "Centre of the film",
    PRIOR: "Location prior",
    SHUFFLED: "Another film's map",
    WITH_PRIOR: "Map × prior",
    SHUFFLED_WITH_PRIOR: "Another film's map × prior",
}
"""Control of localization -> its title. The first three know no network and no film, the others are of a method."""


def methods_of(network: Network) -> tuple[str, ...]:
    """Names of the methods that explain this network."""
    return tuple(name for name, method in METHODS.items() if method.network == network)


PATCHES, PATCHES_RELATIVE, SIGNED_CAM, SIGNED_CAM_RELATIVE = "patches", "patches_relative", "cam", "cam_relative"

AUDITED: dict[str, Method] = {
    method.name: method
    for method in (
        Method(PATCHES, "Patch evidence", "patch", True, False, ("corrected",)),
        Method(PATCHES_RELATIVE, "Patch evidence (relative)", "patch", True, False, ("corrected",)),
        *METHODS.values(),
        Method(SIGNED_CAM, "Signed CAM", "baseline", True, False, ("corrected",)),
        Method(SIGNED_CAM_RELATIVE, "Signed CAM (relative)", "baseline", True, False, ("corrected",)),
    )
}
"""The methods that `evalFaithfulness.py` audits: besides the heat maps, the patches of the unshifted grid, whose sum is
the prediction, and as controls the baseline's CAM without rectification, as it is and less the mean validation CAM."""

SPLITS = {"val": "validation", "test": "test"}
"""Split in the names of result files -> the word for it."""

RUN_RECORD = "run.json"
THRESHOLDS = "thresholds.json"
CALIBRATION = "calibration.json"
REFERENCE = "reference.npz"


MAPS = "map_"
"""Start of the names of files that are made of the fine maps' own predictions."""


def predictions_file(results: Path, split: str, start: str = "") -> Path:
    """Name of the file of predictions of a split. start: empty, or `MAPS` for those that the fine maps decompose."""
    return results / f"{start}predictions_{split}.csv"


def table_file(results: Path, kind: str, split: str) -> Path:
    """Name of a table of a split. kind: such as `classification`; `evaluation.result_tables` lists them."""
    return results / f"{kind}_{split}.csv"


def comparison_file(first: Path, second: Path, kind: str = "comparison") -> Path:
    """The table of two results folders, beside the first. kind: `comparison` or `equivalence`."""
    return first.with_name(f"{kind}_{first.name}_vs_{second.name}.csv")


def map_errors_file(results: Path, split: str) -> Path:
    return results / f"map_errors_{split}.csv"


def reference_file(results: Path) -> Path:
    return results / REFERENCE


def evidence_folder(results: Path, split: str) -> Path:
    return results / "evidence" / split


def heat_map_folder(results: Path, protocol: str, split: str, method: str) -> Path:
    return results / "heatmaps" / protocol / split / method


def localization_folder(results: Path, protocol: str, method: str) -> Path:
    return results / "localization" / protocol / method


BASELINES, ADDED_VALUE, BY_SIZE = "baselines.csv", "added_value.csv", "by_size.csv"
"""The first two of a protocol's folder, the last of a method's."""


def controls_file(results: Path, protocol: str, name: str) -> Path:
    """Name of a table of the controls. name: BASELINES or ADDED_VALUE."""
    return results / "localization" / protocol / name


def faithfulness_folder(results: Path) -> Path:
    return results / "faithfulness"


def check_protocol(protocol: str) -> None:
    """Raises ValueError unless `protocol` is one of the two."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; known are {', '.join(PROTOCOLS)}")
