"""Speaker identification on LibriSpeech, split by chapter, 16 kHz (CC BY 4.0).

Source: https://www.openslr.org/12 (Panayotov et al., ICASSP 2015).

    python data_prep/librispeech_speaker.py [source=ARCHIVE_OR_FOLDER] [subset=train-clean-100]
"""

from pathlib import Path

from spaudio.audio import SourceClip, SourceClips
from spaudio.audio.command import main
from spaudio.audio.source import Archive, open_parts
from spaudio.audio.split import seeded_order
from spaudio.errors import ConfigError, DataError

# SHA-256 checksums from torchaudio.
SUBSETS = {
    "dev-clean": "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
    "train-clean-100": "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
    "train-clean-360": "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf",
}


def prepare(
    work: Path, *, source: str | None = None, subset: str = "train-clean-100", split_seed: int = 0
) -> SourceClips:
    """Lists the utterances; the label is the speaker, the group the chapter.

    One chapter of each speaker is used for the test and, if there are three or more, one for
    validation. A speaker with a single chapter is used for training only.

    Args:
        work: Folder to download and unpack into.
        source: The subset's archive, or a folder that holds it; None downloads.
        subset: One of `SUBSETS`.
        split_seed: Seed of the assignment of chapters to splits.

    Raises:
        ConfigError: If ``subset`` is unknown.
        DataError: If the subset, or some of its speakers or chapters, are missing, or a download
            has the wrong checksum.
    """
    if subset not in SUBSETS:
        raise ConfigError(f"subset={subset!r}; expected one of {', '.join(SUBSETS)}")
    url = f"http://www.openslr.org/resources/12/{subset}.tar.gz"
    root = open_parts([Archive(subset, {url: SUBSETS[subset]}, subset)], work, source)[subset]
    _check_complete(root, subset)
    utterances: dict[str, dict[str, list[str]]] = {}
    for file in sorted(root.glob("*/*/*.trans.txt")):  # so that missing recordings are reported
        speaker, chapter, _ = file.relative_to(root).parts
        names = [line.split()[0] for line in file.read_text("utf-8").splitlines() if line.strip()]
        utterances.setdefault(speaker, {})[f"{speaker}-{chapter}"] = [
            f"{speaker}/{chapter}/{name}.flac" for name in names
        ]
    clips = []
    for speaker, chapters in utterances.items():
        order = seeded_order(chapters, split_seed)
        splits = ["test", *["valid"] * (len(order) > 2)] if len(order) > 1 else []
        splits += ["train"] * (len(order) - len(splits))
        for chapter, split in zip(order, splits, strict=True):
            clips += [SourceClip(path, speaker, split, chapter) for path in chapters[chapter]]
    return SourceClips(root, clips, sorted(utterances, key=lambda name: (len(name), name)))


def _check_complete(root: Path, subset: str) -> None:
    """Raises DataError if the dataset's tables exist and list what has no folder."""
    for table, kind, columns, place in (
        ("SPEAKERS.TXT", "speakers", (0,), 2),
        ("CHAPTERS.TXT", "chapters", (1, 0), 3),  # reader, chapter
    ):
        if not (root.parent / table).is_file():
            continue
        text = (root.parent / table).read_text("utf-8", errors="replace")  # as titles may need
        rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
        known = [
            [row[column] for column in columns]
            for row in rows
            if len(row) > place and row[place] == subset
        ]
        if missing := ["-".join(parts) for parts in known if not root.joinpath(*parts).is_dir()]:
            raise DataError(
                f"{root}: {len(missing)} of {len(known)} {kind} are missing: "
                f"{', '.join(missing)}; unpack {subset}.tar.gz again"
            )


if __name__ == "__main__":
    main("librispeech_speaker", prepare)
