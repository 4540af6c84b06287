"""Scores of detected events, counted by hand."""

from pathlib import Path

import numpy as np

from spaudio.inference.event_scores import (
    EventScore,
    _touching,
    score_events,
    score_rows,
    score_thresholds,
)
from spaudio.inference.events import Event, Recording


def events(label: str, *times: tuple[float, float]) -> list[Event]:
    return [Event(start, end, label, 0.9) for start, end in times]


def recording(name: str, *found: Event) -> Recording:
    return Recording(Path(name), 10.0, found)


def test_events_and_seconds_are_counted() -> None:
    recordings = [
        # Seconds 1 to 3 and 6 for owl, 0 for dog.
        recording("a.wav", *events("owl", (1.2, 4.0), (6.0, 6.5)), *events("dog", (0, 1))),
        recording("b.wav", *events("owl", (9, 10.0))),
        recording("not in the table.wav", *events("owl", (0, 10))),
    ]
    annotated = {
        # Two calls in what was found as one event, and one that was missed.
        Path("a.wav"): events("owl", (1.9, 2.5), (3.1, 3.2), (8.0, 8.5)),
        Path("b.wav"): events("dog", (4.0, 6.0)),
    }
    owl, dog, every = score_events(recordings, annotated, ["owl", "dog", "cat"])
    assert owl == EventScore("owl", 3, 2, 3, 2, hits=3, missed=1, extra=2)
    assert dog == EventScore("dog", 1, 0, 1, 1, hits=0, missed=2, extra=1)
    assert every == EventScore("all classes", 4, 2, 4, 3, hits=3, missed=3, extra=3)
    assert (owl.precision, owl.recall, owl.f1) == (3 / 5, 3 / 4, 6 / 9)
    assert list(score_rows([owl], hours=0.5)[0].values()) == [
        "owl", "3", "2", "3", "2", "4.00", "0.600", "0.750", "0.667",
    ]  # fmt: skip


def test_thresholds_are_scored_alike() -> None:
    found = events("owl", (2, 3))
    one = Recording(Path("a.wav"), 10.0, found, at={0.1: [*found, *events("owl", (5, 7))], 0.9: []})
    annotated = {Path("a.wav"): events("owl", (2, 3))}
    low, high = score_thresholds([one], annotated, ["owl", "dog"])
    assert low == EventScore("0.1", 1, 1, 2, 1, hits=1, missed=0, extra=2)
    assert high == EventScore("0.9", 1, 0, 0, 0, hits=0, missed=1, extra=0)


def test_an_event_over_the_whole_recording_is_not_precise() -> None:
    """It finds every annotation and is not false, so only the seconds show that it is useless."""
    annotated = {Path("a.wav"): events("owl", (2.0, 3.0), (7.0, 8.0))}
    [score] = score_events([recording("a.wav", *events("owl", (0, 10)))], annotated, ["owl"])
    assert (score.found, score.false, score.recall, score.precision) == (2, 0, 1.0, 0.2)


def test_what_only_touches_is_not_found() -> None:
    annotated = {Path("a.wav"): events("owl", (2.0, 3.0))}
    [score] = score_events([recording("a.wav", *events("owl", (3.0, 4.0)))], annotated, ["owl"])
    assert (score.found, score.false, score.hits) == (0, 1, 0)


def test_counts_are_those_of_a_comparison_one_by_one() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        times, others = (
            [(start, start + random.integers(1, 4)) for start in random.integers(0, 30, size)]
            for size in random.integers(0, 9, 2)
        )
        found = sum(any(a < end and b > start for a, b in others) for start, end in times)
        assert _touching(times, others) == found


def test_scores_without_events_are_undefined() -> None:
    [score] = score_events([recording("a.wav")], {Path("a.wav"): []}, ["owl"])
    assert score.label == "all classes"
    assert (score.precision, score.recall, score.f1) == (None, None, None)
    assert score_rows([score], hours=0)[0]["false per hour"] == "-"
