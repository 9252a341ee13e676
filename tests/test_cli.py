"""One-line errors and exit codes."""

import argparse
import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import cli
from cxr.files import InputError


def raising(error):
    def main(argv):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("a.csv, line 2: bad"), 2, "error: a.csv, line 2: bad\n"),
        (InputError("w.pt: damaged"), 2, "error: w.pt: damaged\n"),
        (OSError(28, "No space left on device", "out/x"), 1, "error: out/x: No space left on device\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_expected_failures_are_one_line(capsys, error, code, message):
    assert cli.guarded(raising(error)) == code
    assert capsys.readouterr().err == message


def test_a_programming_error_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        cli.guarded(raising(ZeroDivisionError()))


def test_wrong_arguments_are_one_line_and_exit_2(capsys):
    parser = cli.parser("does things", "python x.py --size 3")
    parser.add_argument("--size", type=int, default=3, help="pixels")
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(["--size", "many"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert "python x.py --size 3" in parser.format_help()
    assert "pixels (default: 3)" in parser.format_help()


def refused(parser, words, capsys):
    """The line with which the parser refuses these words."""
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(words)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.isprintable() is False and said[:-1].isprintable()
    return said


@pytest.mark.parametrize(("option", "most"), [("--seed", 4294967295), ("--workers", 1024)])
@pytest.mark.parametrize("wrong", ["-1", "above", "1.5", "many", "", "\u0661", "9" * 5000, "\x1b[31m1"])
def test_seed_and_workers_are_whole_numbers(option, most, wrong, capsys):
    parser = cli.parser("does things", "python x.py")
    cli.add_seed(parser)
    cli.add_workers(parser)
    assert vars(parser.parse_args(["--seed", "4294967295", "-pr", "0"])) == {"seed": 4294967295, "workers": 0}
    assert parser.parse_args([option, str(most)])
    said = refused(parser, [f"{option}={str(most + 1) if wrong == 'above' else wrong}"], capsys)
    assert option in said and f"is not a whole number from 0 to {most}" in said


@pytest.mark.parametrize(
    ("kind", "good", "bad", "words"),
    [
        (cli.number(0, 1, above=True), {"1": 1.0, "1e-9": 1e-9}, ["0", "1.1", "-1", "nan"], "above 0 to 1"),
        (cli.number(0), {"0": 0.0, "1e300": 1e300}, ["-0.1", "inf", "1e999", "nan", "x", ""], "from 0 on"),
        (cli.number(0, above=True), {"1e-300": 1e-300}, ["0", "-0", "-inf", "1e-999"], "above 0 on"),
    ],
)
def test_numbers_out_of_range_are_refused_in_one_line(kind, good, bad, words, capsys):
    parser = cli.parser("does things", "python x.py")
    parser.add_argument("--value", type=kind)
    for text, value in good.items():
        assert parser.parse_args([f"--value={text}"]).value == value
    for text in bad:
        said = refused(parser, [f"--value={text}"], capsys)
        assert f"argument --value: '{text}' is not a number {words}" in said


def test_paths_must_be_there_and_must_not_be_empty(tmp_path, capsys):
    parser = cli.parser("does things", "python x.py")
    parser.add_argument("--data", type=cli.existing_folder)
    parser.add_argument("--output", type=cli.path)
    assert parser.parse_args(["--data", str(tmp_path), "--output", "new"]).data == tmp_path
    for words in (["--data", ""], ["--output", ""], ["--output", " "], ["--output", "a\0b"]):
        assert "is not a path" in refused(parser, words, capsys)
    for missing in ("missing\nfolder", "x" * 5000):
        assert "no such folder" in refused(parser, ["--data", missing], capsys)
    (tmp_path / "file").touch()
    assert "no such folder" in refused(parser, ["--data", str(tmp_path / "file")], capsys)


def test_an_option_that_is_gone_says_what_replaces_it(capsys):
    parser = cli.parser("does things", "python x.py")
    parser.add_argument("--needed", required=True)
    cli.add_gone(parser, {"-hpc": "nothing is needed", "-model": "--backbone"})
    for words in (["-hpc"], ["-hpc", "--needed", "x"], ["-model", "ScalePatchNet"], ["-model=ScalePatchNet"]):
        option = words[0].partition("=")[0]
        replacement = {"-hpc": "nothing is needed", "-model": "--backbone"}[option]
        assert f"{option} of the published script is gone: {replacement}" in refused(parser, words, capsys)
    assert "-hpc" not in parser.format_help()


@pytest.mark.parametrize(("cores", "workers"), [(3, 3), (20, 16)])
def test_as_many_workers_as_cores_that_may_be_used(cores, workers, monkeypatch):
    """A batch system gives a job some of the machine's."""
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(cores)))
    parser = cli.parser("does things", "python x.py")
    cli.add_workers(parser)
    assert parser.parse_args([]).workers == workers


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    assert cli.pick_device("auto") == "cpu"
    with pytest.raises(InputError, match="no CUDA device"):
        cli.pick_device("cuda")
    with pytest.raises(InputError, match="no Metal device"):
        cli.pick_device("mps")


def test_run_facts_can_be_written_as_json(tmp_path):
    from cxr.files import write_json

    facts = cli.run_facts(argparse.Namespace(data=tmp_path, seed=3, heatmaps=["raw"]), "cpu")
    write_json(tmp_path / "run.json", facts)
    assert facts["seed"] == 3
    assert facts["versions"]["torch"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        np._core._exceptions._ArrayMemoryError((10**9, 10**9), np.dtype(float)),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nand much more"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("Caught _ArrayMemoryError in DataLoader worker process 0."),
        ImportError("libtorch_cpu.so: failed to map segment from shared object: Cannot allocate memory"),
        OSError(12, "Cannot allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize(
    ("options", "way_out"),
    [
        (("--batch-size", "--workers"), "lower --batch-size or --workers"),
        (("--workers",), "lower --workers"),
        ((), "end other programs, or take a larger machine"),
    ],
)
def test_a_lack_of_memory_is_one_line_that_names_the_options_of_the_script(error, options, way_out, capsys):
    def main(argv):
        parser = cli.parser("does things", "python x.py")
        for option in options:
            parser.add_argument(option)
        parser.parse_args(argv)
        raise error

    assert cli.guarded(main, []) == 2
    assert capsys.readouterr().err == f"error: out of memory; {way_out}\n"


@pytest.mark.parametrize("option", ["-wb", "-evalOnly", "-model=ScalePatchNet", "-hpc", "-imgSize=512", "-lrFactor=2"])
def test_options_of_the_published_script_are_explained_by_the_evaluation_too(option, capsys):
    with pytest.raises(SystemExit) as caught:
        importlib.import_module("evalClassification").main(["--weights", "hf://a/b", "--data", "x", option])
    said = capsys.readouterr().err
    assert caught.value.code == 2 and said.count("\n") == 1
    assert f"{option.partition('=')[0]} of the published script is gone: " in said


def test_real_lacks_of_memory(capsys):
    for allocate in (lambda: np.empty(2**55, np.uint8), lambda: torch.empty(2**50), lambda: bytearray(2**62)):
        assert cli.guarded(lambda _, allocate=allocate: allocate()) == 2
        assert capsys.readouterr().err.startswith("error: out of memory; ")


def test_other_errors_are_not_a_lack_of_memory(capsys):
    for error in (RuntimeError("shape mismatch"), ImportError("no module"), KeyError("out of memory")):
        with pytest.raises(type(error)):
            cli.guarded(lambda _, error=error: (_ for _ in ()).throw(error))
    assert cli.guarded(lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))) == 1
    assert capsys.readouterr().err == "error: No space left on device\n"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("makeReport", [""]),
        ("makeReport", ["results", "--output", ""]),
        ("convertWeights", ["convert", "a.pt", ""]),
        ("convertWeights", ["convert", "a.pt", "b", "--patch-size", "-5"]),
        ("convertWeights", ["describe", "", "--results", "x"]),
        ("evalClassification", ["--weights", "", "--data", "x"]),
        ("evalClassification", ["--weights", "x", "--data", ""]),
        ("evalClassification", ["--weights", "x", "--data", "x", "--batch-size", "0"]),
        ("evalClassification", ["--predictions", "x", "--resamples", "-5"]),
        ("evalLocalization", ["x", "--chexlocalize", ""]),
        ("evalLocalization", ["x", "--chexlocalize", "x", "--resamples", "0"]),
        ("evalFaithfulness", [""]),
        ("evalFaithfulness", ["x", "--weights", " "]),
        ("evalFaithfulness", ["x", "--pairs", ""]),
        ("evalFaithfulness", ["x", "--chexlocalize", "nowhere"]),
        ("evalFaithfulness", ["x", "--fills", "1.5"]),
        ("evalFaithfulness", ["x", "--resamples", "0"]),
        ("preprocessing.makeDemoDataset", ["--output", "o", "--pairs", "0"]),
        ("tune_heatmap_threshold_opt", ["--map_dir", "x", "--gt_path", "x", "--save_dir", ""]),
        ("predictImage", ["x", "--weights", " ", "--output", "o"]),
        ("preprocessing.makeManifest", ["", "--source", "nih", "--output", "o"]),
        ("preprocessing.makeManifest", ["x", "--source", "nih", "--output", ""]),
        ("preprocessing.makeDemoDataset", ["--output", ""]),
        ("preprocessing.preProcFilms", ["--manifest", "x", "--output", ""]),
        ("preprocessing.preProcCheXpert", ["--chexpert", "x", "--output", ""]),
        ("fitAggregation", ["--weights", " ", "--data", ".", "--output", "o"]),
        ("fitAggregation", ["--weights", "x", "--data", "x", "--output", "o"]),
        ("fitAggregation", ["--weights", "x", "--data", ".", "--output", ""]),
        ("trainClassification", ["--data", "x", "--output", "o", "--image-size", "0"]),
        ("trainClassification", ["--data", "x", "--output", "o", "--batch-size", "0"]),
    ],
)
def test_options_of_every_script_out_of_range_are_one_line(script, words, tmp_path, monkeypatch, capsys):
    """An empty path would be the current folder, and an empty name its results."""
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.guarded(importlib.import_module(script).main, words)
    except SystemExit as caught:
        code = caught.code
    said = capsys.readouterr()
    assert code == 2 and said.out == "" and said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_one_version_in_code_changelog_and_citation():
    from cxr import __version__

    root = Path(cli.__file__).parent
    newest = re.search(r"^## (\S+) - (\S+)$", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = (root / "CITATION.cff").read_text()
    assert newest[1] == __version__
    assert f"version: {__version__}\ndate-released: {newest[2]}\n" in citation


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_on_cuda_float32_is_float32(monkeypatch, asked):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert cli.pick_device(asked) == "cuda"
    assert not torch.backends.cudnn.allow_tf32
