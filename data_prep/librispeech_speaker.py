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
        DataError: If the subset or some of its speakers are missing, or a download has the wrong
            checksum.
    """
    if subset not in SUBSETS:
        raise ConfigError(f"subset={subset!r}; expected one of {', '.join(SUBSETS)}")
    url = f"http://www.openslr.org/resources/12/{subset}.tar.gz"
    root = open_parts([Archive(subset, {url: SUBSETS[subset]}, subset)], work, source)[subset]
    _check_speakers(root, subset)
    utterances: dict[str, dict[str, list[str]]] = {}
    for path in sorted(root.glob("*/*/*.flac")):
        speaker, chapter, name = path.relative_to(root).parts
        chapters = utterances.setdefault(speaker, {})
        chapters.setdefault(f"{speaker}-{chapter}", []).append(f"{speaker}/{chapter}/{name}")
    clips = []
    for speaker, chapters in utterances.items():
        order = seeded_order(chapters, split_seed)
        splits = ["test", *["valid"] * (len(order) > 2)] if len(order) > 1 else []
        splits += ["train"] * (len(order) - len(splits))
        for chapter, split in zip(order, splits, strict=True):
            clips += [SourceClip(path, speaker, split, chapter) for path in chapters[chapter]]
    return SourceClips(root, clips, sorted(utterances, key=lambda name: (len(name), name)))


def _check_speakers(root: Path, subset: str) -> None:
    """Raises DataError if ``SPEAKERS.TXT`` exists and lists speakers without a folder."""
    table = root.parent / "SPEAKERS.TXT"
    if not table.is_file():
        return
    rows = [line.split("|") for line in table.read_text(encoding="utf-8").splitlines()]
    known = [row[0].strip() for row in rows if len(row) > 2 and row[2].strip() == subset]
    if missing := [speaker for speaker in known if not (root / speaker).is_dir()]:
        raise DataError(
            f"{root}: {len(missing)} of {len(known)} speakers are missing: "
            f"{', '.join(missing)}; unpack {subset}.tar.gz again"
        )


if __name__ == "__main__":
    main("librispeech_speaker", prepare)
