"""ESC-50: 2,000 environmental sounds of 5 s in 50 classes and 5 official folds, and ESC-10.

Source: https://github.com/karolpiczak/ESC-50 (CC BY-NC 3.0; the subset ESC-10: CC BY 3.0).

    python data_prep/esc50.py source=ARCHIVE_OR_FOLDER [subset=esc10]
"""

from pathlib import Path

from spaudio.audio import SourceClips
from spaudio.audio.command import main
from spaudio.audio.source import find_root, folds_of_table, read_table
from spaudio.errors import ConfigError, DataError

CLASSES = {"esc50": 50, "esc10": 10}
WHERE = (
    "fetch https://github.com/karolpiczak/ESC-50/archive/refs/heads/master.zip (600 MB; GitHub "
    "makes it on demand and publishes no checksum, so it is not downloaded automatically)"
)


def prepare(work: Path, *, source: str | None = None, subset: str = "esc50") -> SourceClips:
    """Lists the clips with their official folds; the group is the Freesound recording.

    Args:
        work: Folder to unpack into.
        source: Upstream's archive or the folder it unpacks to.
        subset: ``"esc50"``, or ``"esc10"`` for the ten classes of the older set.

    Raises:
        ConfigError: If ``source`` is missing or ``subset`` is unknown.
        DataError: If the source has an unexpected layout or lacks classes.
    """
    if subset not in CLASSES:
        raise ConfigError(f"subset={subset!r}; expected {' or '.join(CLASSES)}")
    root = find_root(source, work, "meta/esc50.csv", WHERE)
    rows = read_table(root / "meta/esc50.csv")
    rows = [row for row in rows if subset == "esc50" or row.get("esc10") == "True"]
    clips, labels = folds_of_table(
        rows, path="audio/{filename}", label="category", number="target", group="src_file"
    )
    if len(labels) != CLASSES[subset]:
        raise DataError(
            f"{root}/meta/esc50.csv lists {len(labels)} of the {CLASSES[subset]} classes of "
            f"{subset}; {'try subset=esc10, or ' if subset == 'esc50' else ''}{WHERE}"
        )
    return SourceClips(root, clips, labels)


if __name__ == "__main__":
    main("esc50", prepare)
