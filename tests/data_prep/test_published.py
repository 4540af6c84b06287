"""The scripts of published datasets on tiny imitations: what they list and what they refuse."""

import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from data_prep import (
    audiomnist,
    esc50,
    fsd50k,
    fsdd,
    gtzan,
    librispeech_speaker,
    nsynth,
    ravdess,
    speech_commands,
    urbansound8k,
)
from spaudio.audio.manifest import read_manifest
from spaudio.audio.split import split_by_fold
from spaudio.errors import ConfigError, DataError
from tests.fixtures import tiny_corpora as tiny
from tests.fixtures.tiny_audio import make_fsdd, make_fsdd_zip, run_script, spoil

SHARED = Path(__file__).resolve().parents[3] / "shared/data"
REAL_ESC, REAL_FSDD = SHARED / "ESC-50-master", SHARED / "free-spoken-digit-dataset-master.zip"

GTZAN = ["blues.00029", "blues.00000", "blues.00012", "jazz.00054", "jazz.00012"]
MAKE: dict[Any, Callable[[Path], Path]] = {
    audiomnist: partial(tiny.make_audiomnist, speakers=[26, 28, 36, 43, 12]),
    esc50: tiny.make_esc50,
    fsd50k: tiny.make_fsd50k,
    fsdd: partial(make_fsdd, digits=range(3)),
    gtzan: partial(tiny.make_gtzan, tracks=GTZAN, suffix="au"),
    librispeech_speaker: tiny.make_librispeech,
    nsynth: tiny.make_nsynth,
    ravdess: tiny.make_ravdess,
    speech_commands: tiny.make_speech_commands,
    urbansound8k: tiny.make_urbansound8k,
}


class Listing(NamedTuple):
    """What a script lists; a clip has the fields that ``path`` reads from its path."""

    script: Any
    options: dict[str, Any]
    labels: str
    counts: dict[str, int] | dict[int, int]  # clips per split or fold
    path: str
    clips: dict[str, tuple[str, str | int]]  # label, and split or fold, of some


LISTINGS = [
    Listing(
        audiomnist, {"skip_bad": True}, "0 1 2", dict.fromkeys(range(1, 6), 6),
        r"data/(?P<group>\d+)/(?P<label>\d)_\d\d_\d\.wav", {"data/28/1_28_0.wav": ("1", 2)},
    ),
    Listing(
        esc50, {"subset": "esc10"}, " ".join(tiny.ESC10.values()), dict.fromkeys(range(1, 6), 10),
        r"audio/(?P<fold>\d)-(?P<group>\d+)-A-\d+\.wav",
        {"audio/2-38002-A-38.wav": ("clock_tick", 2)},
    ),
    Listing(
        fsd50k, {}, "Animal Bark Chime Drip", {"train": 36, "valid": 12, "test": 24},
        r"\w+_audio/(?P<group>\d+)\.wav",
        {
            "dev_audio/1003.wav": ("Bark,Drip,Animal", "train"),
            "eval_audio/1048.wav": ("Bark,Animal", "test"),
        },
    ),
    Listing(
        fsdd, {}, "0 1 2", {"test": 45, "train": 27}, r"(?P<label>\d)_(?P<group>\w+)_\d\.wav",
        {"2_theo_4.wav": ("2", "test"), "2_theo_5.wav": ("2", "train")},
    ),
    Listing(
        fsdd, {"split": "speaker", "test_speaker": "theo"}, "0 1 2", {"test": 24, "train": 48},
        r"(?P<label>\d)_(?P<group>\w+)_\d\.wav", {"2_theo_5.wav": ("2", "test")},
    ),
    Listing(
        gtzan, {"skip_bad": True}, "blues jazz", {"train": 3, "valid": 1, "test": 1},
        r"(?P<label>\w+)/(?P<group>[\w.]+)\.au",
        {"blues/blues.00000.au": ("blues", "valid"), "blues/blues.00012.au": ("blues", "test")},
    ),
    *[
        Listing(
            librispeech_speaker, {"split_seed": seed}, "19 26 87 103",
            {"train": 15, "valid": 6, "test": 9},
            r"(?P<label>\d+)/\d+/(?P<group>\d+-\d+)-\d+\.flac",
            {"26/100/26-100-0000.flac": ("26", "train")},
        )
        for seed in (0, 1)
    ],
    *[
        Listing(
            nsynth, {"task": task}, labels, {"train": 36, "valid": 18, "test": 12}, path,
            {"valid/audio/bass_synthetic_005-061-100.wav": (label, "valid")},
        )
        for task, label, labels, path in (
            ("family", "bass", "bass brass keyboard",
             r"(?P<split>\w+)/audio/(?P<group>(?P<label>[a-z]+)_\w+)-\d+-100\.wav"),
            ("source", "synthetic", "acoustic electronic synthetic",
             r"(?P<split>\w+)/audio/(?P<group>[a-z]+_(?P<label>[a-z]+)_\d+)-\d+-100\.wav"),
            ("pitch", "61", "60 61 62",
             r"(?P<split>\w+)/audio/(?P<group>\w+)-0(?P<label>\d+)-100\.wav"),
        )
    ],
    Listing(
        ravdess, {"skip_bad": True}, " ".join(ravdess.EMOTIONS), dict.fromkeys(range(1, 6), 16),
        r"Actor_(?P<group>\d\d)/03-01-.*\.wav",
        {"Actor_03/03-01-06-01-01-02-03.wav": ("fearful", 2)},
    ),
    Listing(
        speech_commands, {}, "backward bed no up yes", {"train": 40, "valid": 10, "test": 10},
        r"words/(?P<label>\w+)/(?P<group>\w+)_nohash_\d\.wav",
        {
            "words/bed/00000004_nohash_1.wav": ("bed", "valid"),
            "words/no/00000005_nohash_0.wav": ("no", "test"),
        },
    ),
    Listing(
        urbansound8k, {}, " ".join(tiny.URBAN), dict.fromkeys(range(1, 11), 10),
        r"audio/fold(?P<fold>\d+)/(?P<group>\d+)-\d-0-0\.wav",
        {"audio/fold10/1008-8-0-0.wav": ("siren", 10)},
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", LISTINGS, ids=lambda case: case.script.__name__)
def test_labels_splits_and_groups_are_upstream_s(case: Listing, tmp_path: Path) -> None:
    made = MAKE[case.script](tmp_path / "made")
    prepared = run_script(case.script.prepare, tmp_path / "data", source=made, **case.options)
    assert prepared.labels == tuple(case.labels.split())
    assert prepared.multi_label == (case.script is fsd50k)
    assert read_manifest(prepared.manifest) == list(prepared.clips)
    places = {clip.path: clip.fold or clip.split for clip in prepared.clips}
    assert Counter(places.values()) == case.counts
    # FSDD's official split shares speakers; test and validation of NSynth share instruments.
    if case.script is not nsynth and (case.script is not fsdd or case.options):
        groups = {(clip.group, places[clip.path]) for clip in prepared.clips}
        assert len(groups) == len({group for group, _ in groups})
    for clip in prepared.clips:
        found = re.fullmatch(case.path, clip.path)
        assert found is not None, clip.path
        assert {name: str(getattr(clip, name)) for name in found.groupdict()} == found.groupdict()
    labels = {clip.path: clip.label for clip in prepared.clips}
    assert {path: (labels[path], places[path]) for path in case.clips} == case.clips


ESC10 = {"subset": "esc10"}
NO_SOURCE = {"source": None}
CHOOSE = "choose one of george, jackson, theo"
UNFIT: list[tuple[Any, dict[str, Any], str]] = [
    (esc50, {"subset": "esc20"}, "subset='esc20'"),
    (esc50, NO_SOURCE, r"source= is required.*fetch https"),
    (fsdd, {"split": "speaker", "test_speaker": "bob"}, CHOOSE),
    (fsdd, {"split": "speaker"}, CHOOSE),
    (fsdd, {"split": "random"}, "split='random'"),
    (fsdd, {"test_speaker": "theo"}, "test_speaker='theo' needs split=speaker"),
    (gtzan, NO_SOURCE, r"source= is required.*genres\.tar\.gz"),
    (librispeech_speaker, {"subset": "train-other-500"}, "subset='train-other-500'"),
    (nsynth, {"task": "timbre"}, "task='timbre'"),
    (nsynth, NO_SOURCE, r"source= is required.*nsynth-train\.jsonwav\.tar\.gz"),
    (speech_commands, {"task": "v1"}, "task='v1'"),
    (speech_commands, {"test": "list"}, "test='list'"),
    (speech_commands, {"test": "archive"}, "test='archive'"),
    (speech_commands, {"split_seed": -1}, "split_seed=-1; expected 0 or more"),
    (urbansound8k, {"split": "random"}, r"slices come from one recording.*folds=all"),
]


@pytest.mark.parametrize(("script", "options", "message"), UNFIT)
def test_options_that_do_not_fit(
    script: Any, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    made = MAKE[script](tmp_path / "made")
    with pytest.raises(ConfigError, match=message):
        script.prepare(tmp_path, **({"source": str(made)} | options))


def drop(name: str) -> Callable[[Path], None]:
    """Returns what removes a file or folder of a dataset."""
    return lambda made: shutil.move(made / name, made.parent / "dropped")


def edit(name: str, old: str, new: str) -> Callable[[Path], object]:
    """Returns what replaces text in a file of a dataset."""
    return lambda made: (made / name).write_text((made / name).read_text().replace(old, new))


# Script, damage, options, and the message.
DAMAGED: list[tuple[Any, Callable[[Path], object], dict[str, Any], str]] = [
    (esc50, drop("audio/1-1-A-0.wav"), ESC10, r"1-1-A-0\.wav: no such file"),
    (esc50, drop("meta"), ESC10, r"holds no meta/esc50\.csv"),
    (esc50, Path.exists, {}, r"lists 11 of the 50 classes of esc50; try subset=esc10"),
    (fsd50k, drop("FSD50K.dev_audio/1000.wav"), {}, r"1 of 72 clips[^@]*/1000\.wav: no such file"),
    (fsd50k, edit("FSD50K.ground_truth/dev.csv", "Chime", "Chirp"), {},
     r"unknown label 'Chirp'; known: Animal, Bark, Chime"),
    (fsd50k, drop("FSD50K.ground_truth/dev.csv"), {}, r"ground_truth/dev\.csv: cannot be read"),
    (fsd50k, drop("FSD50K.eval_audio"), {}, r"1 of 3 parts[^@]*eval_audio\.z01 .*eval_audio\.zip"),
    (fsdd, lambda made: (made / "recordings/0_theo_1.wav").rename(made / "recordings/zero.wav"), {},
     r"zero\.wav: not named"),
    (fsdd, drop("recordings"), {}, "no recordings"),
    (gtzan, Path.exists, {}, r"blues\.00001\.au: no such file"),  # a missing track is an error
    (librispeech_speaker, Path.exists, {"subset": "dev-clean"}, r"no .*12/dev-clean\.tar\.gz"),
    (librispeech_speaker, drop("LibriSpeech/train-clean-100/87"), {}, "1 of 4 .* missing: 87"),
    (librispeech_speaker, drop("LibriSpeech/train-clean-100/19/102"), {},
     r"1 of 10 chapters are missing: 19-102"),
    (librispeech_speaker, drop("LibriSpeech/train-clean-100/19/101/19-101-0002.flac"), {},
     r"1 of 30 clips[^@]*19/101/19-101-0002\.flac: no such file"),
    (nsynth, drop("nsynth-test/audio/bass_synthetic_005-060-100.wav"), {},
     r"1 of 66 clips[^@]*test/audio/.*: no such file"),
    (nsynth, lambda made: spoil(made / "nsynth-test/examples.json"), {}, r"json: cannot be read"),
    (nsynth, edit("nsynth-test/examples.json", 'r": "bass_synthetic_005"',
                  'r": "bass_acoustic_000"'), {},
     r"1 instruments .* are in training too: bass_acoustic_000"),
    (speech_commands, drop("testing_list.txt"), {}, r"words: no testing_list\.txt"),
    (speech_commands, drop("bed/00000005_nohash_1.wav"), {},
     r"1 of 60 clips[^@]*words/bed/00000005_nohash_1\.wav: no such file"),
    (speech_commands, lambda made: [edit(f"{part}_list.txt", "backward", "bed")(made)
                                    for part in ("testing", "validation")], {},
     r"no clip of 'backward', so this is not v0\.02"),
    (speech_commands, lambda made: spoil(made / "no/00000000_nohash_0.wav"), {},
     r"1 of 60 clips[^@]*words/no/00000000_nohash_0\.wav: truncated"),
]  # fmt: skip


@pytest.mark.parametrize(("script", "damage", "options", "message"), DAMAGED)
def test_what_is_missing_or_damaged_is_named(
    script: Any,
    damage: Callable[[Path], object],
    options: dict[str, Any],
    message: str,
    tmp_path: Path,
) -> None:
    made = MAKE[script](tmp_path / "made" / "set")
    damage(made)
    with pytest.raises(DataError, match=message):
        run_script(script.prepare, tmp_path / "data", source=made, **options)


@pytest.mark.parametrize(
    ("script", "packed", "others", "options"),
    [
        (fsdd, "..", ["recordings"], {}),
        (esc50, "..", [".."], ESC10),
        (librispeech_speaker, "", ["LibriSpeech", "LibriSpeech/train-clean-100"], {}),
    ],
)
def test_archive_folder_and_others_around_it_are_the_same_data(
    script: Any, packed: str, others: list[str], options: dict[str, Any], tmp_path: Path
) -> None:
    made = MAKE[script](tmp_path / "top" / "made")
    archive = tiny.pack(made / packed, tmp_path / ("a.zip" if packed else "a.tar.gz"))
    run = partial(run_script, script.prepare, tmp_path / "data", **options)
    sources = [made, archive, *(made / other for other in others)]
    assert len({run(source=source).hash for source in sources}) == 1
    run(source=archive, skip_bad=True)
    assert len(list((tmp_path / "data").rglob("unpacked-*"))) == 1  # unpacked once


def test_parts_of_nsynth_may_be_packed_or_deeper(tmp_path: Path) -> None:
    made, packed = tiny.make_nsynth(tmp_path / "made"), tmp_path / "packed"
    run = partial(run_script, nsynth.prepare, tmp_path / "data")
    expected = run(source=made).hash
    for split in ("train", "test"):
        shutil.move(made / f"nsynth-{split}", tmp_path / split / f"nsynth-{split}")
        tiny.pack(tmp_path / split, packed / f"nsynth-{split}.jsonwav.tar.gz")
    with pytest.raises(DataError, match=r"1 of 3 parts[^@]*nsynth-valid\.jsonwav\.tar\.gz"):
        run(source=packed)
    shutil.move(made / "nsynth-valid", packed / "deeper" / "nsynth-valid")
    assert run(source=packed).hash == expected


@pytest.mark.skipif(shutil.which("zip") is None, reason="Info-ZIP is not installed")
@pytest.mark.parametrize("zip64", [False, True])  # as above 4 GiB
def test_archives_as_published_are_split_zips(
    zip64: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, packed = tiny.make_fsd50k(tmp_path / "fsd50k"), tmp_path / "packed"
    packed.mkdir()
    files: dict[str, dict[str, str]] = {}
    for part in fsd50k.FILES:
        # Info-ZIP cuts into pieces of 64 KiB; noise does not shrink.
        (folder / f"FSD50K.{part}" / "noise.bin").write_bytes(random.Random(0).randbytes(100_000))
        options = ["-q", "-r", "-s", "64k", *(["-fz"] if zip64 else [])]
        command = ["zip", *options, str(packed / f"FSD50K.{part}.zip")]
        subprocess.run([*command, f"FSD50K.{part}"], cwd=folder, check=True)
        files[part] = {p.suffix[1:]: "0" * 32 for p in sorted(packed.glob(f"*.{part}.z*"))}
    assert sorted(files["dev_audio"])[:3] == ["z01", "z02", "z03"]
    monkeypatch.setattr(fsd50k, "FILES", files)
    run = partial(run_script, fsd50k.prepare, tmp_path / "data")
    archive = packed / "FSD50K.dev_audio.zip"
    assert (b"PK\6\7" in archive.read_bytes()) == zip64
    with fsd50k.SplitZip(archive) as opened:
        assert opened.testzip() is None
    last = archive.with_suffix(f".{sorted(files['dev_audio'])[-2]}")
    last.rename(tmp_path / "piece")
    with pytest.raises(DataError, match="1 of 3 parts"):
        run(source=packed)
    with pytest.raises(DataError, match=r"\d+ pieces make up this zip, \d+ are here"):
        fsd50k.SplitZip(archive)
    (tmp_path / "piece").rename(last)
    assert run(source=packed).hash == run(source=folder).hash


def test_whole_sets_are_listed_with_their_authors_splits(tmp_path: Path) -> None:
    marker = "Actor_01/03-01-01-01-01-01-01.wav"
    for name in ("data/audioMNIST_meta.txt", marker, "Audio_Song/Actor_01", "blues"):
        (tmp_path / name).mkdir(parents=True)
    clips = {
        script: list(script.prepare(tmp_path, source=str(tmp_path)).clips)
        for script in (audiomnist, ravdess, gtzan)
    }
    for script, number in ((audiomnist, 30_000), (ravdess, 1440), (gtzan, 930)):
        assert len({clip.path for clip in clips[script]}) == len(clips[script]) == number
    labels = Counter(clip.label for clip in clips[ravdess])
    assert (labels["neutral"], labels["fearful"]) == (96, 192)  # there is no strong neutral
    assert len({(clip.group, clip.fold) for clip in clips[ravdess]}) == 24
    splits = Counter(clip.split for clip in clips[gtzan])
    assert splits == {"train": 443, "valid": 197, "test": 290}
    # Upstream's split no. 2 of the task "digit", as audiomnist/train/splits.py writes it out.
    speakers: dict[str, set[int]] = {"train": set(), "valid": set(), "test": set()}
    for clip in split_by_fold(clips[audiomnist], 3):  # type: ignore[arg-type]
        speakers[clip.split].add(int(clip.group))
    assert speakers["valid"] == {28, 56, 7, 19, 35, 1, 6, 16, 23, 34, 46, 53}
    assert speakers["test"] == {36, 57, 9, 24, 37, 2, 8, 17, 29, 39, 48, 54}
    assert speakers["train"] == set(range(1, 61)) - speakers["valid"] - speakers["test"]


def test_the_track_of_gtzan_that_is_known_to_be_damaged_is_left_out(tmp_path: Path) -> None:
    made = tiny.make_gtzan(tmp_path / "made", GTZAN, suffix="wav")
    (made / "genres/jazz/jazz.00054.wav").write_bytes(b"\x03\x01" * 4000)
    found = gtzan.prepare(tmp_path, source=str(made))
    listed = {clip.path for clip in found.clips}
    assert len(listed) == 929
    assert "jazz/jazz.00054.wav" not in listed
    [said] = found.warnings  # which the report shows, too
    assert said.startswith("jazz/jazz.00054.wav is damaged")


def test_a_download_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny.make_urbansound8k(tmp_path / "made")
    asked: list[object] = []

    def download(url: str, target: Path, checksum: str) -> Path:
        asked.append((url, checksum))
        return made

    monkeypatch.setattr(urbansound8k, "download", download)
    urbansound8k.prepare(tmp_path / "work")
    assert asked == [(urbansound8k.URL, urbansound8k.MD5)]


def test_a_download_must_hold_the_known_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make_fsdd_zip(tmp_path / "fsdd.zip", digits=range(1), clips=1)
    monkeypatch.setattr(fsdd, "download", lambda url, target, sha256: archive)
    with pytest.raises(DataError, match=f"{fsdd.RECORDINGS_SHA256}.*source="):
        fsdd.prepare(tmp_path / "work")


def test_recordings_that_are_missing_are_named(tmp_path: Path) -> None:
    folder = make_fsdd(tmp_path / "fsdd", digits=range(10))
    assert fsdd.prepare(tmp_path / "work", source=str(folder)).warnings == []
    for file in folder.rglob("[5-9]_*"):
        file.unlink()
    next(folder.rglob("3_*")).unlink()
    digits, speakers = fsdd.prepare(tmp_path / "work", source=str(folder)).warnings
    assert digits == "there are no recordings of 5, 6, 7, 8, 9"
    assert speakers.startswith("not all speakers have 8 recordings of each digit: ")
    assert speakers.endswith(" has 7 of 3")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data are not beside the repository")
def test_the_real_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The recordings have the checksum that was published for the pinned version.
    monkeypatch.setattr(fsdd, "download", lambda url, target, sha256: REAL_FSDD)
    clips = list(fsdd.prepare(tmp_path).clips)
    assert Counter(clip.split for clip in clips) == {"train": 2700, "test": 300}
    assert len({clip.group for clip in clips}) == 6
    source = esc50.prepare(tmp_path, source=str(REAL_ESC), subset="esc10")
    clips = list(source.clips)
    assert set(Counter((clip.fold, clip.label) for clip in clips).values()) == {8}
    assert all((source.root / clip.path).is_file() for clip in clips)
    folds = {(clip.group, clip.fold) for clip in clips}
    assert len(folds) == len({group for group, _ in folds})  # no recording is in two folds
