"""The page's opening sentences say the means of Tables 1 and 2."""

from cxr.names import METHODS
from reporting.localization_results import HIT_RATE, MIOU_TP
from reporting.page.opening import opening
from reporting.reading import read_results


def test_sentences_hold_the_numbers_of_the_tables(complete_results):
    results = read_results(complete_results)
    first, *of_maps = opening(results)
    for model, scores in results.scored_models.values():
        assert f"{model.name} {scores.get('Mean (14)', 'auroc', '-').value:.3f}" in first
    assert first.startswith("Mean AUROC over 14 labels on 60 test films: ")
    for sentence, measure, words in zip(of_maps, (HIT_RATE, MIOU_TP), ("hit rate", "IoU"), strict=True):  # no controls
        means = results.localization_means("corrected", measure)
        ranked = sorted((method for method in means if method in METHODS), key=lambda method: -means[method].value)
        places = [sentence.index(f"{METHODS[method].title} {means[method].value:.3f}") for method in ranked]
        assert places == sorted(places) and f"mean {words}" in sentence


def test_nothing_is_said_of_what_is_not_there(folder):
    for path in folder.glob("*/localization"):
        path.rename(path.with_name("elsewhere"))
    assert len(opening(read_results(folder))) == 1
