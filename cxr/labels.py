"""The 14 CheXpert labels, the 10 CheXlocalize tasks, and how one is called in the other.

CheXpert's own files, VisualCheXbert's and CheXlocalize's order their columns differently, so labels are matched by
name and never by position.
"""

LABELS: tuple[str, ...] = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""The project's order everywhere: that of CheXpert's `train.csv`."""

TASKS: tuple[str, ...] = (
    "Airspace Opacity",
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Lung Lesion",
    "Pleural Effusion",
    "Pneumothorax",
    "Support Devices",
)
"""The pathologies that CheXlocalize segments, by its names, in the alphabetical order of its result files."""

_TASK_OF_LABEL = {"Lung Opacity": "Airspace Opacity"}
_LABEL_OF_TASK = {task: label for label, task in _TASK_OF_LABEL.items()}


def task_of(label: str) -> str:
    """CheXlocalize's name of a CheXpert label (`Lung Opacity` is called `Airspace Opacity` there)."""
    return _TASK_OF_LABEL.get(label, label)


def label_of(task: str) -> str:
    """CheXpert's name of a CheXlocalize task."""
    return _LABEL_OF_TASK.get(task, task)


CHEXLOCALIZE_LABELS: tuple[str, ...] = tuple(label for label in LABELS if task_of(label) in TASKS)
"""The 10 CheXlocalize tasks under their CheXpert names, in CheXpert's order."""
