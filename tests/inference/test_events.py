"""Files of events as their readers define them."""

import csv
from datetime import UTC, datetime
from pathlib import Path

from spaudio.inference.events import Event, Recording, as_audacity, as_csv, as_raven

EVENTS = [Event(0.5, 1.25, "=dog\t", 0.9), Event(3600.0, 3601.5, "owl", 0.51234)]
PLAIN = Recording(Path("a/b.wav"), 4000.0, EVENTS)
TIMED = Recording(PLAIN.path, 4000.0, EVENTS, datetime(2024, 5, 1, 23, 30, tzinfo=UTC))


def test_a_table_with_clock_times_if_they_are_known() -> None:
    first, second = csv.DictReader(as_csv([PLAIN]).splitlines())
    assert list(first) == ["file", "start", "end", "class", "confidence"]
    assert (first["class"], second["start"]) == ("'=dog\t", "3600.000")
    _, second = csv.DictReader(as_csv([TIMED]).splitlines())
    assert second["start_time"] == "2024-05-02T00:30:00.000+00:00"
    assert second["end_time"] == "2024-05-02T00:30:01.500+00:00"


def test_clock_times_are_rounded_as_the_seconds_beside_them() -> None:
    one = Recording(PLAIN.path, 9.0, [Event(0.0016, 1.9999, "owl", 0.9)], TIMED.begin)
    [row] = csv.DictReader(as_csv([one]).splitlines())
    assert (row["start"], row["start_time"][-9:-6]) == ("0.002", "002")
    assert (row["end"], row["end_time"][-12:-6]) == ("2.000", "02.000")


def test_the_path_of_a_recording_is_kept() -> None:
    one = Recording(Path("a/9.00\u202fAM\n.wav"), 4000.0, EVENTS)
    [row, _] = csv.DictReader(as_csv([one]).splitlines())
    assert row["file"] == "a/9.00\u202fAM\\n.wav"
    [row, _] = csv.DictReader(as_raven(one, 8000.0).splitlines(), delimiter="\t")
    assert row["Begin File"] == "9.00\u202fAM\\n.wav"


def test_labels_keep_their_letters() -> None:
    """Also those that a terminal cannot show: the labels are read again, and must be classes."""
    label = "\u72ac\u3000\u732b \u0645\u06cc\u200c\u0634\u0648\u062f"
    one = Recording(Path("a.wav"), 10.0, [Event(0.5, 1.0, label, 0.9)])
    [row] = csv.DictReader(as_raven(one, 8000.0).splitlines(), delimiter="\t")
    assert row["Class"] == label
    assert as_audacity(one).split("\t")[2] == f"{label} 0.90\n"


def test_labels_of_audacity() -> None:
    """https://manual.audacityteam.org/man/importing_and_exporting_labels.html"""
    lines = [line.split("\t") for line in as_audacity(PLAIN).splitlines()]
    assert lines == [["0.500000", "1.250000", "=dog\\t 0.90"],
                     ["3600.000000", "3601.500000", "owl 0.51"]]  # fmt: skip
    assert as_audacity(TIMED).splitlines()[1].endswith("owl 0.51 2024-05-02T00:30:00.000+00:00")


def test_selections_of_raven() -> None:
    """The columns that Raven needs, tab-separated, selections counted from 1."""
    rows = list(csv.DictReader(as_raven(TIMED, 8000.0).splitlines(), delimiter="\t"))
    needed = ["Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)",
              "High Freq (Hz)"]  # fmt: skip
    assert list(rows[0])[:7] == needed
    assert [row["Selection"] for row in rows] == ["1", "2"]
    assert rows[1]["Begin Time (s)"] == "3600.000000"
    assert Path(rows[0]["Begin Path"]) == Path.cwd() / PLAIN.path  # tells apart files of one name
    assert rows[1]["High Freq (Hz)"] == "8000"
    assert rows[1]["Begin Date Time"] == "2024-05-02T00:30:00.000+00:00"
    assert "Begin Date Time" not in as_raven(PLAIN, 8000.0)
