"""RAVDESS, speech: 1,440 acted sentences of 24 actors in 8 emotions, 48 kHz (CC BY-NC-SA 4.0).

Source: https://zenodo.org/records/1188976 (Livingstone & Russo, doi 10.1371/journal.pone.0196391).

    python data_prep/ravdess.py [source=ARCHIVE_OR_FOLDER]
"""

from itertools import product
from pathlib import Path

from spaudio.audio import SourceClip, SourceClips
from spaudio.audio.command import main
from spaudio.audio.source import find_root
from spaudio.io.download import download

URL = "https://zenodo.org/records/1188976/files/Audio_Speech_Actors_01-24.zip"
MD5 = "bc696df654c87fed845eb13823edef8a"  # as published by Zenodo
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
#: Actors of each fold, balanced in sex and emotions: Luna-Jimenez et al., doi 10.3390/s21227665.
FOLDS = (
    (2, 5, 14, 15, 16), (3, 6, 7, 13, 18), (10, 11, 12, 19, 20), (8, 17, 21, 23, 24), (1, 4, 9, 22),
)  # fmt: skip


def prepare(work: Path, *, source: str | None = None) -> SourceClips:
    """Lists the sentences; the group is the actor.

    Args:
        work: Folder to download and unpack into.
        source: Upstream's archive or the folder it unpacks to; None downloads.

    Raises:
        DataError: If the source has an unexpected layout, or a download fails or has the wrong
            checksum.
    """
    archive = source or download(URL, work / "ravdess.zip", MD5)
    # A file of speech: the archive of songs has the same folders, and may be beside this one.
    marker = "Actor_01/03-01-01-01-01-01-01.wav"
    root = find_root(archive, work, marker, f"fetch {URL} (208 MB)")
    clips = []
    for fold, actor in ((n, actor) for n, actors in enumerate(FOLDS, 1) for actor in actors):
        for emotion, strength, sentence, take in product(range(8), (1, 2), (1, 2), (1, 2)):
            if emotion > 0 or strength == 1:  # neutral has no strong intensity
                path = f"Actor_{actor:02}/03-01-{emotion + 1:02}-{strength:02}-{sentence:02}"
                path += f"-{take:02}-{actor:02}.wav"
                clips.append(SourceClip(path, EMOTIONS[emotion], "train", f"{actor:02}", fold))
    return SourceClips(root, clips, labels=EMOTIONS)


if __name__ == "__main__":
    main("ravdess", prepare)
