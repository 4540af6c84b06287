"""UrbanSound8K: 8,732 slices, up to 4 s, of urban recordings; 10 classes and 10 official folds.

Source: https://zenodo.org/records/1203745 (CC BY-NC), 6 GB.

    python data_prep/urbansound8k.py [source=ARCHIVE_OR_FOLDER]
"""

from pathlib import Path

from spaudio.audio import SourceClips
from spaudio.audio.command import main
from spaudio.audio.source import find_root, folds_of_table, read_table
from spaudio.errors import ConfigError
from spaudio.io.download import download

URL = "https://zenodo.org/records/1203745/files/UrbanSound8K.tar.gz"
MD5 = "9aa69802bbf37fb986f71ec1483a196e"  # as published by Zenodo
CSV = "metadata/UrbanSound8K.csv"


def prepare(work: Path, *, source: str | None = None, split: str = "official") -> SourceClips:
    """Lists the slices with their official folds; the group is the Freesound recording.

    Args:
        work: Folder to download and unpack into.
        source: Upstream's archive or the folder it unpacks to; None downloads.
        split: Only ``"official"``, the ten folds, is accepted.

    Raises:
        ConfigError: If another split is requested.
        DataError: If the source has an unexpected layout, or a download fails or has the wrong
            checksum.
    """
    if split != "official":
        raise ConfigError(
            f"split={split!r} is refused: many slices come from one recording, and a random split "
            "puts them in both training and test; use fold=1..10 or folds=all"
        )
    archive = source or download(URL, work / "UrbanSound8K.tar.gz", MD5)
    root = find_root(archive, work, CSV, f"fetch {URL} (6 GB)")
    clips, labels = folds_of_table(
        read_table(root / CSV),
        path="audio/fold{fold}/{slice_file_name}",
        label="class",
        number="classID",
        group="fsID",
    )
    return SourceClips(root, clips, labels)


if __name__ == "__main__":
    main("urbansound8k", prepare)
