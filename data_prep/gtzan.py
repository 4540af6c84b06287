"""GTZAN: 30 s tracks of 10 genres, in the fault-filtered, artist-aware split of 930 tracks.

The music is under copyright and has no licence; the original host is offline.

    python data_prep/gtzan.py source=ARCHIVE_OR_FOLDER
"""

from pathlib import Path

from spaudio.audio import SourceClip, SourceClips
from spaudio.audio.command import main
from spaudio.audio.decode import probe
from spaudio.audio.manifest import SPLITS
from spaudio.audio.source import find_root
from spaudio.errors import AudioError

WHERE = "give genres.tar.gz, or a folder with blues/blues.00000.wav (or .au), ..."
#: Damaged in the common copies with WAV files.
KNOWN_BAD = "jazz.00054"


def prepare(work: Path, *, source: str | None = None) -> SourceClips:
    """Lists the tracks of the split of Kereliuk, Sturm and Larsen (arXiv 1507.04761).

    It leaves out repeated, distorted and mislabelled tracks, and keeps each artist in one split.
    torchaudio ships its lists.

    Args:
        work: Folder to unpack into.
        source: Archive, or folder that holds one folder per genre.

    Raises:
        ConfigError: If ``source`` is missing.
        DataError: If the source has an unexpected layout.
    """
    from torchaudio.datasets import gtzan as lists

    root = find_root(source, work, "blues", WHERE)
    suffix = "wav" if any(root.glob("*/*.wav")) else "au"
    clips, left_out = [], []
    for split in SPLITS:
        for track in getattr(lists, f"filtered_{split}"):
            label = track.partition(".")[0]
            path = f"{label}/{track}.{suffix}"
            if track == KNOWN_BAD and _damaged(root / path):
                left_out.append(f"{path} is damaged, as in all such copies, and left out")
                continue
            clips.append(SourceClip(path=path, label=label, split=split, group=track))
    return SourceClips(root, clips, labels=lists.gtzan_genres, warnings=left_out)


def _damaged(path: Path) -> bool:
    try:
        probe(path)
    except AudioError:
        return path.is_file()
    return False


if __name__ == "__main__":
    main("gtzan", prepare)
