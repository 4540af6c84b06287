"""FSD50K: 51,197 Freesound clips of 0.3 to 30 s, several of 200 classes each, 44.1 kHz.

Source: https://zenodo.org/records/4060432 (Fonseca et al., arXiv 2010.00475). The set is CC BY 4.0;
each clip has its own licence (CC0, CC BY, CC BY-NC or CC Sampling+).

    python data_prep/fsd50k.py [source=FOLDER]
"""

from __future__ import annotations

import csv
from pathlib import Path

from spaudio.audio.command import main
from spaudio.audio.parts import Part, link_parts, open_parts
from spaudio.audio.prepare import SourceClip, SourceClips
from spaudio.errors import DataError

HOST = "https://zenodo.org/records/4060432/files"
# MD5 as Zenodo lists them.
FILES = {
    "dev_audio": {
        "z01": "faa7cf4cc076fc34a44a479a5ed862a3",
        "z02": "8f9b66153e68571164fb1315d00bc7bc",
        "z03": "1196ef47d267a993d30fa98af54b7159",
        "z04": "d088ac4e11ba53daf9f7574c11cccac9",
        "z05": "81356521aa159accd3c35de22da28c7f",
        "zip": "c480d119b8f7a7e32fdb58f3ea4d6c5a",
    },
    "eval_audio": {
        "z01": "3090670eaeecc013ca1ff84fe4442aeb",
        "zip": "6fa47636c3a3ad5c7dfeba99f2637982",
    },
    "ground_truth": {"zip": "ca27382c195e37d2269c4c866dd73485"},
}
SPLITS = {"train": "train", "val": "valid"}
PARTS = [
    Part(
        name,
        {f"{HOST}/FSD50K.{name}.{end}": md5 for end, md5 in files.items()},
        folder=f"FSD50K.{name}",
    )
    for name, files in FILES.items()
]


def prepare(work: Path, *, source: str | None = None) -> SourceClips:
    """Lists the clips, split as published; each is a group of its own.

    Args:
        work: Folder to download and unpack into.
        source: Folder that holds ``FSD50K.{dev_audio,eval_audio,ground_truth}`` or their archives;
            None downloads.

    Raises:
        DataError: If parts are missing, a table is damaged, or a download is not the one known.
    """
    folders = open_parts(PARTS, work, source)
    clips = []
    try:
        vocabulary = _rows(folders["ground_truth"] / "vocabulary.csv", "index", "label", "mid")
        labels = [row["label"] for row in vocabulary]
        for table, part in (("dev.csv", "dev_audio"), ("eval.csv", "eval_audio")):
            for row in _rows(folders["ground_truth"] / table):
                split = SPLITS[row["split"]] if part == "dev_audio" else "test"
                path = f"{part}/{row['fname']}.wav"
                clips.append(SourceClip(path, row["labels"], split, row["fname"]))
    except (OSError, KeyError, csv.Error) as error:
        raise DataError(
            f"{folders['ground_truth']}: a table is missing or damaged ({type(error).__name__}: "
            f"{error}); fetch {HOST}/FSD50K.ground_truth.zip again"
        ) from error
    return SourceClips(link_parts(folders, work), clips, labels, multi_label=True)


def _rows(path: Path, *names: str) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, names or None))


if __name__ == "__main__":
    main("fsd50k", prepare)
