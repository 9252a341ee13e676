"""Trains MedicalPatchNet, or with patch size = image size its baseline, on CheXpert or any manifest; then evaluates it.

AdamW, OneCycle, binary cross entropy, as published. The last weights are written after every epoch into the output
folder, those of the best validation AUROC into its `best/`. At the end the last weights (the published choice) are
evaluated on validation and, once, on test.

A run that was killed, or asked to stop (SIGTERM, Ctrl-C, SIGUSR1), continues where it was when it is started again.
Under `torchrun`, or `srun` with the same variables, several processes train as one and share the films of every step.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cli
from cxr.files import InputError, place, sha256
from training_options import BUILT_IN_INITS, parse_args

if TYPE_CHECKING:  # main imports what is heavy after the options are parsed, so that --help and mistakes answer at once
    import numpy as np
    from torch import Tensor

    from cxr.manifests.films import Films
    from models.patch_net import MedicalPatchNet
    from training.checkpoints import Checkpoints
    from training.distillation import Distillation
    from training.distributed import ProcessGroup
    from training.trainer import Trainer

EXAMPLES = """
python trainClassification.py --data data/CheXpert-1024 --output savedModels/MedicalPatchNet
python trainClassification.py --data data/CheXpert-1024 --patch-size 512 --output savedModels/EfficientNetB0
torchrun --nproc-per-node 4 trainClassification.py --data data/CheXpert-packed --output savedModels/MedicalPatchNet
python trainClassification.py --data demo/data/CheXpert-256 --output demo/savedModels/tiny --init random \\
    --backbone timm/test_efficientnet --image-size 256 --patch-size 32 --epochs 1 --resamples 1000
python trainClassification.py --data films-256 --output savedModels/tuned --init demo/savedModels/MedicalPatchNet \\
    --backbone dense64 --image-size 256 --epochs 1 --no-evaluation
python trainClassification.py --data demo/data/CheXpert-256 --output demo/savedModels/student \\
    --teacher demo/savedModels/MedicalPatchNet --init random --backbone dense64 --image-size 256 --epochs 1 \\
    --no-evaluation
"""


def main(argv: Sequence[str] | None = None) -> int:
    args, recipe, settings = parse_args(argv, __doc__.splitlines()[0], EXAMPLES)
    from cxr.runs.folder_lock import locked
    from models.checkpoint import save_model
    from models.hub import resolve_weights
    from training.checkpoints import Checkpoints, is_finished
    from training.compiling import choose_compile
    from training.distributed import process_group
    from training.engine import Precision
    from training.options import TrainingOptions
    from training.split_films import fingerprints, read_splits
    from training.trainer import Trainer

    device = cli.pick_device(args.device)
    checkpoints = Checkpoints(args.output, args.keep_checkpoints)
    with process_group(device) as group, locked(args.output) if group.is_main else nullcontext():
        args.compile = choose_compile(args.compile, device, group)
        options = TrainingOptions(**{field.name: getattr(args, field.name) for field in fields(TrainingOptions)})
        parts = options.parts_per_step(group.world_size)
        chosen = {"uncertain": args.uncertain, "frontal_only": args.frontal_only, "fraction": args.fraction}
        films, validation = read_splits(args.data, **chosen)
        init = None if args.init in BUILT_IN_INITS else resolve_weights(args.init)
        teacher = None if args.teacher is None else resolve_weights(args.teacher)
        origins = _origins(args, init, teacher)
        recipe |= origins
        settings |= {"precision": Precision(device, args.precision).name, "compile": args.compile}
        settings |= {"parts_per_step": parts} | origins | fingerprints(films, validation)
        group.require_equal(f"--data {args.data}: options and label files", settings)
        if args.resume == "auto" and group.broadcast(is_finished(args.output, settings)):
            group.print(f"{args.output}: training is complete")
        else:
            _announce(films, validation, group)
            results = None if args.no_evaluation else args.results
            state = _saved_state(checkpoints, settings, args.resume, results) if group.is_main else None
            state = group.broadcast(state)
            taught = None if teacher is None else _distillation(teacher, args, films.label_set.names, device)
            model = _network(args, films, recipe, init, resumed=state is not None, say=group.print)
            trainer = Trainer(
                model, films, validation, options, checkpoints, settings, image_size=args.image_size,
                score=_mean_auroc, save_weights=save_model, device=device, group=group, distillation=taught,
            )  # fmt: skip
            code = _train(trainer, state, cli.run_facts(args, device))
            if code is not None:
                return code
        if args.no_evaluation:
            return 0
        group.barrier()  # rank 0 writes the weights, all read them
        given = {name: getattr(args, name) for name in ("data", "device", "seed", "workers", "batch_size", "resamples")}
        code = _evaluate(args.output, args.results, given, group.is_main)
        if group.is_main:
            checkpoints.clear()  # nothing is left to resume
        return code


def _origins(args: argparse.Namespace, init: Path | None, teacher: Path | None) -> dict[str, str]:
    """Names and fingerprints of the weights to start from and to learn from, for settings and model card."""
    facts = {"init": args.init} if init is None else _origin("init", args.init, init)
    return facts if teacher is None else facts | _origin("teacher", args.teacher, teacher)


def _origin(option: str, spec: str, path: Path) -> dict[str, str]:
    from models.weight_names import weights_name
    from models.weights_folder import weights_file

    return {option: weights_name(spec), f"{option}_sha256": sha256(weights_file(path))}


def _announce(films: Films, validation: Films, group: ProcessGroup) -> None:
    from training.split_films import one_sided_labels

    sizes = f"{len(films)} films for training, {len(validation)} for validation"
    group.print(f"training labels: {films.table.name}; {sizes}")
    if warning := one_sided_labels(films):
        group.print(f"warning: {warning}")


def _saved_state(
    checkpoints: Checkpoints, settings: dict[str, Any], resume: str, results: Path | None
) -> dict[str, Any] | None:
    """The state to continue from; None for a fresh start, for which `results` must hold no other network's results."""
    from cxr.runs.run_record import RunRecord
    from training.checkpoints import refuse_other_settings

    state = checkpoints.load() if resume == "auto" else None
    if state is not None:
        refuse_other_settings(checkpoints.newest, state.get("settings"), settings)
        return state
    if results is not None:  # better refused before a training than after it
        RunRecord(results).belongs_to(None, option="--results")
    if resume == "never":
        checkpoints.start_over()
    return None


def _distillation(path: Path, args: argparse.Namespace, labels: Sequence[str], device: str) -> Distillation:
    """Loads the teacher. Raises InputError in one line where it cannot teach this network."""
    from models.checkpoint import load_model
    from training.distillation import Distillation

    teacher = load_model(path, patch_size=None if path.is_dir() else args.patch_size, device=device)
    try:
        return Distillation(teacher, labels, patch_size=args.patch_size, image_size=args.image_size)
    except InputError as error:
        raise InputError(f"--teacher {place(path)}: {error}") from None


def _network(
    args: argparse.Namespace,
    films: Films,
    recipe: Mapping[str, Any],
    init: Path | None,
    *,
    resumed: bool,
    say: Callable[[str], object],
) -> MedicalPatchNet:
    """The network before its first step, with the facts that travel with its weights.

    init: a file or folder of initial weights, if there is one. resumed: a training state brings the weights instead.
    """
    from cxr.pixels.grey import recorded_grey
    from models.checkpoint import build_model
    from models.initial import start_from

    cli.set_seed(args.seed)
    model = build_model(
        args.backbone,
        patch_size=args.patch_size,
        image_size=args.image_size,
        labels=films.label_set,
        aggregation=args.aggregation,
        init="imagenet" if args.init == "imagenet" and not resumed else "random",
    )
    if init is not None and not resumed:
        for line in start_from(model, init):
            say(f"--init {args.init}: {line}")
    model.details["grey"] = (recorded_grey(args.data) or films.grey).to_json()
    model.details["training_data"] = {"labels": films.table.name, "films": len(films)} | recipe
    return model


def _train(trainer: Trainer, state: dict[str, Any] | None, facts: dict[str, Any]) -> int | None:
    """Trains to the end, or until a signal stops the program with the exit code that is returned."""
    from reporting.pictures.curves import draw_learning_curves

    started = time.monotonic()
    if state is not None:
        trainer.resume(state)
    code = trainer.train()
    if code is None and trainer.group.is_main:
        draw_learning_curves(trainer.folder)
        trainer.finish(facts | {"seconds": round(time.monotonic() - started, 1)})
    return code


def _mean_auroc(logits: Tensor, labels: np.ndarray) -> float:
    """Mean AUROC over the labels for which it is defined; NaN where it is for none. Both (N, C)."""
    import numpy as np

    from evaluation.metrics import auroc

    values = []
    for truth, scores in zip(labels.T, logits.numpy().T, strict=True):  # (N,) of one label
        known = ~np.isnan(truth)
        values.append(auroc(truth[known], scores[known]))
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan


def _evaluate(weights: Path, results: Path, given: dict[str, Any], describes: bool) -> int:
    """The exit code of the final evaluation; `describes`: its numbers are added to the description of the weights."""
    import evalClassification  # its heat maps need packages that training alone does not
    from models.measured import describe

    options = {"weights": weights, "output": results, "heatmaps": "none"} | given
    words = [(f"--{name.replace('_', '-')}", str(value)) for name, value in options.items()]
    code = evalClassification.main([word for pair in words for word in pair])
    if describes:
        describe(weights, results)
    return code


if __name__ == "__main__":
    cli.run(main)
