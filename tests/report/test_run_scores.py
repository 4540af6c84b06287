"""The scores in a run's report and on its page, computed again from its recorded probabilities."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
)
from torchmetrics.functional.classification import multiclass_calibration_error

from spaudio.report.probabilities import read_probabilities


def test_scores_follow_from_the_recorded_probabilities(page_run: Path) -> None:
    report = json.loads((page_run / "report.json").read_text())
    markdown = (page_run / "report.md").read_text()
    html = (page_run / "report.html").read_text(encoding="utf-8")
    test = read_probabilities(page_run / "probabilities.csv")["test"]
    labels, predicted = test.targets(multi_label=False), test.values.argmax(dim=1)

    with (page_run / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["clip"], row["true"], row["predicted"]) for row in rows] == [
        (clip, label, test.classes[number])
        for clip, label, number in zip(test.clips, test.labels, predicted.tolist(), strict=True)
    ]
    chances = [float(row["probability"]) for row in rows]
    assert chances == pytest.approx(test.values.max(dim=1).values.tolist(), abs=1e-6)

    accuracy = (predicted == labels).double().mean().item()
    assert report["test"]["accuracy"] == pytest.approx(accuracy)
    assert f"| **transformer** | **{accuracy:.4f}** (95 % interval " in markdown
    assert f"<span>test accuracy</span><strong>{accuracy:.3f}</strong>" in html
    floor, majority = report["floor"]["svm"], max(np.bincount(labels)) / len(labels)
    assert f"RBF-SVM) | {floor:.4f} |\n| majority class | {majority:.4f} |" in markdown
    below = "The transformer does not beat the classical floor."
    assert accuracy <= floor  # of a model that has hardly been trained
    assert f"**{below}**" in markdown
    assert below in html
    recall = balanced_accuracy_score(labels, predicted)
    assert f"balanced accuracy (macro recall): {recall:.4f}" in markdown
    counts = report["clips"]
    assert counts["test"] == len(labels)
    valid = report["valid"]["accuracy"]
    assert (
        f"- clips: {counts['train']} training, {counts['valid']} validation, {counts['test']} "
        f"test; validation accuracy of these weights: {valid:.4f}" in markdown
    )

    numbers = range(len(test.classes))
    scores = precision_recall_fscore_support(
        labels, predicted, labels=list(numbers), zero_division=np.nan
    )
    for name, precision, part, f1, support in zip(test.classes, *scores, strict=True):
        shown = [
            "-" if np.isnan(value) else f"{value:.3f}"
            # Of a class that is never predicted only the precision is undefined.
            for value in (precision, part, 0.0 if np.isnan(precision) else f1)
        ]
        assert f"| {name} | {' | '.join(shown)} | {support} |" in markdown
        row = "".join(f"<td>{each}</td>" for each in [support, *shown])
        assert f'title="List its clips">{name}</button></th>{row}' in html

    # The page: the number of clips in each cell, and the pairs of classes sorted by it.
    confusion = confusion_matrix(labels, predicted, labels=list(numbers))
    cells = re.findall(
        r'data-label="(\d)" data-predicted="(\d)"[^>]* aria-label="[^"]*: (\d+)"', html
    )
    assert {(int(a), int(b)): int(n) for a, b, n in cells} == {
        (a, b): confusion[a, b] for a in numbers for b in numbers if confusion[a, b]
    }
    pairs = re.findall(r'data-label="(\d)" data-predicted="(\d)"[^>]*><bdi>.*<b>(\d+)</b>', html)
    assert all(a != b and confusion[int(a), int(b)] == int(n) for a, b, n in pairs)
    errors = sorted((confusion - np.diag(confusion.diagonal())).flatten(), reverse=True)
    assert [int(n) for *_, n in pairs] == errors[: len(pairs)]
    assert len(pairs) == np.count_nonzero(errors)

    calibration = report["calibration"]
    before = (test.values.double().log() * calibration["temperature"]).softmax(dim=1)
    for name, values in (("before", before), ("after", test.values.double())):
        error = multiclass_calibration_error(values, labels, len(test.classes), n_bins=15).item()
        loss = torch.nn.functional.nll_loss(values.log(), labels).item()
        assert calibration[name]["ece"] == pytest.approx(error, abs=1e-5)
        assert calibration[name]["loss"] == pytest.approx(loss, abs=1e-5)
    after, before = (calibration[name] for name in ("after", "before"))
    assert (
        f"- expected calibration error: {after['ece']:.4f} with temperature "
        f"{calibration['temperature']:.3f}, {before['ece']:.4f} without" in markdown
    )
    assert f"{before['ece']:.4f} as trained, {after['ece']:.4f} with temperature scaling" in html
    assert f"Cross-entropy: {before['loss']:.4f} as trained, {after['loss']:.4f} with it" in html
