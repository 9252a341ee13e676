"""What travels with the weights: config.json's details survive every way round, and the card tells them."""

from __future__ import annotations

import hashlib
import html
import json
import re

import pytest
import torch
from huggingface_hub import ModelCard

import cli
from convertWeights import main
from cxr.files import printable
from models.card import model_card, standard_details
from models.checkpoint import build_model, load_model, save_model
from models.measured import measured_details
from models.patch_net import MedicalPatchNet

DETAILS = {
    "thresholds": {"Edema": 0.125, "Fracture": None},
    "training_data": {"labels": "train_visualCheXbert.csv", "films": 223414},
    "licence": "Häufig gelesen, nie verstanden.",
}
CLASSIFICATION = """\
label,metric,rule,threshold,value,ci_low,ci_high,bootstrap_mean,bootstrap_median,resamples,note
Edema,auroc,-,,0.91234,0.88,0.94,0.91,0.91,1000,
Edema,accuracy,youden,0.125,0.8,0.7,0.9,0.8,0.8,1000,
Edema,sensitivity,youden,0.125,0.85,0.7,0.95,0.85,0.85,1000,
Fracture,auroc,-,,,,,,,0,no positives
"""
HIT_RATE = "name,lower,mean,upper\nEdema,0.1,0.2,0.3\nMean,0.4,0.485,0.5\n"


@pytest.fixture
def model():
    torch.manual_seed(0)
    sizes = {"patch_size": 32, "image_size": 64, "labels": ("Edema", "Fracture")}
    model = build_model("timm/test_efficientnet", **sizes)
    model.details |= DETAILS
    return model.eval()


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    place = folder / "localization" / "corrected" / "raw"
    place.mkdir(parents=True)
    (folder / "thresholds.json").write_text(
        '{"Edema": {"threshold": 0.25, "reason": null}, "Fracture": {"threshold": null, "reason": "no positives"}}'
    )
    (folder / "classification_test.csv").write_text(CLASSIFICATION)
    (place / "hitmiss_summary_results.csv").write_text(HIT_RATE)
    return folder


def test_details_survive_every_way_of_saving_and_loading(model, tmp_path):
    images = torch.rand(2, 1, 64, 64)
    save_model(model, tmp_path / "a")
    by_hub_class = MedicalPatchNet.from_pretrained(tmp_path / "a")
    by_hub_class.save_pretrained(tmp_path / "b")
    by_project = load_model(tmp_path / "b")
    for again in (by_hub_class, by_project):
        assert again.details == standard_details() | DETAILS
        torch.testing.assert_close(again(images), model(images), rtol=0, atol=0)
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_config_json_says_what_the_network_takes_and_gives(model, tmp_path):
    save_model(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    details = config.pop("details")
    assert config == {
        "backbone": "timm/test_efficientnet",
        "patch_size": 32,
        "image_size": 64,
        "labels": ["Edema", "Fracture"],
    }
    assert set(details) == {"preprocessing", "licence", "thresholds", "training_data"}
    assert "[0, 1]" in details["preprocessing"]


def test_a_folder_of_before_the_details_still_loads(model, tmp_path):
    save_model(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    del config["details"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_model(tmp_path).details == standard_details()


def test_from_pretrained_refuses_a_network_with_a_missing_tensor(model, tmp_path):
    from safetensors.torch import load_file, save_file

    save_model(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["head.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match="head.weight"):
        MedicalPatchNet.from_pretrained(tmp_path)


def test_describe_adds_what_was_measured(model, results, tmp_path, capsys):
    folder = tmp_path / "weights"
    save_model(model, folder)
    tensors = (folder / "model.safetensors").read_bytes()
    sha256 = hashlib.sha256(tensors).hexdigest()
    (results / "run.json").write_text(json.dumps({"weights": {"sha256": sha256}}))
    assert cli.guarded(main, ["describe", str(folder), "--results", str(results)]) == 0
    assert (folder / "model.safetensors").read_bytes() == tensors
    details = load_model(folder).details
    assert details["thresholds"] == {"Edema": 0.25, "Fracture": None}
    assert details["training_data"] == DETAILS["training_data"]
    assert details["classification"] == [
        {"label": "Edema", "metric": "AUROC", "value": 0.91234, "ci_low": 0.88, "ci_high": 0.94},
        {"label": "Edema", "metric": "sensitivity", "value": 0.85, "ci_low": 0.7, "ci_high": 0.95},
        {"label": "Fracture", "metric": "AUROC", "value": None, "ci_low": None, "ci_high": None},
    ]
    assert details["localization"] == [
        {"measure": "corrected/raw/hitmiss", "value": 0.485, "ci_low": 0.4, "ci_high": 0.5}
    ]


def test_the_card_has_the_tables_the_limits_and_valid_metadata(model, results):
    details = model.details | measured_details(results)
    config = {"backbone": model.backbone, "patch_size": 32, "image_size": 64, "labels": model.labels}
    details |= {"grey": {"rule": "range", "low": 0, "high": 4095}}
    text = model_card(config, details)
    for line in (
        "no further normalisation. Rule from stored values to grey: range 0 4095.",
        "| Edema | AUROC | 0.912 | 0.880 to 0.940 |",
        "| Fracture | AUROC |  |  |",
        "| corrected/raw/hitmiss | mean over tasks | 0.485 | 0.400 to 0.500 |",
        "| 0 | Edema | 0.250 |",
        "| 1 | Fracture |  |",
        "- films: 223414",
        "## Limits",
        "**Not a medical device**",
        DETAILS["licence"],
    ):
        assert line in text
    data = ModelCard(text).data
    assert (data.license, data.pipeline_tag, data.library_name) == ("mit", "image-classification", "medicalpatchnet")


HOSTILE = "<script>alert(1)</script> | [x](http://e) `c` **b** __u__ # h ~~s~~ $m$ &lt; \n\n# Heading\n\x1b[2J"


def words(text: str) -> str:
    """Without underscores, as the names of facts are shown."""
    return " ".join(text.replace("_", " ").split())


def rendered(text: str) -> str:
    """The card as HTML, from a Markdown renderer with tables that passes HTML on."""
    markdown_it = pytest.importorskip("markdown_it")
    return markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)


@pytest.mark.parametrize("text", [HOSTILE, "# Heading", "- item", "1. item", "+ item", "[a]: http://e", "---", "]("])
def test_texts_from_config_json_act_neither_as_markdown_nor_as_html(model, text):
    row = {"value": 0.5, "ci_low": None, "ci_high": None}
    plain = "plain"
    cards = [
        model_card(
            {"backbone": said, "patch_size": 32, "image_size": 64, "labels": [said]},
            {
                "preprocessing": said,
                "licence": said,
                "training_data": {said: said, "list": [said]},
                "classification": [row | {"label": said, "metric": said}],
                "localization": [row | {"measure": said}],
            },
        ).split("---", 2)[2]
        for said in (text, plain)
    ]
    tags = [re.findall(r"</?\w+", rendered(card)) for card in cards]
    assert tags[0] == tags[1], "the text makes the same elements as a plain word"
    shown = html.unescape(re.sub(r"<[^>]*>", "", rendered(cards[0])))
    assert words(shown).count(words(printable(" ".join(text.split())))) == 9
    assert "\x1b" not in cards[0]


def test_a_card_says_how_the_patches_are_aggregated(model):
    config = {"backbone": model.backbone, "patch_size": 32, "image_size": 64, "labels": model.labels}
    assert "the mean of their logits is the prediction" in model_card(config, standard_details())
    text = model_card(config | {"aggregation": "noisy_or"}, standard_details())
    assert "the aggregation `noisy_or` makes the prediction" in text and "contribution is exact" not in text


def test_the_card_of_a_baseline_does_not_speak_of_votes(model):
    config = {"backbone": model.backbone, "patch_size": 64, "image_size": 64, "labels": model.labels}
    text = model_card(config, standard_details())
    assert "sees the film as a whole" in text
    assert "patch_logits" not in text
    assert "No thresholds are recorded" in text and "Nothing is recorded" in text


@pytest.mark.parametrize("damage", ["nothing", "thresholds", "values", "table", "weights", "labels"])
def test_describe_refuses_what_is_no_result(model, results, tmp_path, capsys, damage):
    save_model(model, tmp_path / "weights")
    if damage == "nothing":
        results = tmp_path
    elif damage == "thresholds":
        (results / "thresholds.json").write_text("[1, 2")
    elif damage == "values":
        (results / "thresholds.json").write_text('{"Edema": {"threshold": 7}}')
    elif damage == "labels":
        (results / "thresholds.json").write_text('{"Edema": {"threshold": 0.5}, "Effusion": {"threshold": 0.5}}')
    elif damage == "weights":
        (results / "run.json").write_text(json.dumps({"weights": {"sha256": "of others"}}))
    else:
        (results / "classification_test.csv").write_text(CLASSIFICATION.replace("0.91234", "much"))
    before = (tmp_path / "weights/config.json").read_bytes()
    assert cli.guarded(main, ["describe", str(tmp_path / "weights"), "--results", str(results)]) == 2
    assert (tmp_path / "weights/config.json").read_bytes() == before
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("complete", "local", "words"),
    [
        (True, True, "contributions sum to the logit (complete), and do not change with the other patches (local)."),
        (False, False, "contributions do not sum to the logit (not complete), and depend on the other patches (not"),
    ],
)
def test_certificates_of_the_test_films_travel_with_the_weights(model, results, tmp_path, complete, local, words):
    save_model(model, tmp_path / "weights")
    sizes = {"patch_size": 32, "image_size": 64}
    certificates = {
        "val": {"complete": True, "local": True},
        "test": {"complete": complete, "local": local, "films": 8},
    }
    (results / "run.json").write_text(json.dumps({"model": sizes, "certificates": certificates}))
    assert main(["describe", str(tmp_path / "weights"), "--results", str(results)]) == 0
    described = load_model(tmp_path / "weights")
    assert described.details["certificates"] == certificates["test"]
    assert words in (tmp_path / "weights" / "README.md").read_text()
    (results / "run.json").write_text(json.dumps({"model": sizes | {"patch_size": 64}, "certificates": certificates}))
    assert "certificates" not in measured_details(results), "a baseline sees the film as one patch"


def test_certificates_that_say_nothing_are_left_out_of_the_card(model):
    config = {"backbone": "b", "patch_size": 32, "image_size": 64, "labels": ["Edema"]}
    for certificates in ({}, {"complete": 1, "local": True}, {"local": False}):
        card = model_card(config, standard_details() | {"certificates": certificates})
        assert "swapping patches" not in card
