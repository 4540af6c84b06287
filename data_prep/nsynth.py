"""NSynth: 305,979 four-second notes of 1,006 instruments, 16 kHz (CC BY 4.0).

Source: https://magenta.tensorflow.org/datasets/nsynth (Engel et al., arXiv 1704.01279).

    python data_prep/nsynth.py source=FOLDER [task=family|source|pitch]
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spaudio.audio import SourceClip, SourceClips
from spaudio.audio.command import main
from spaudio.audio.manifest import SPLITS
from spaudio.audio.source import Archive, link_parts, open_parts
from spaudio.errors import ConfigError, DataError

HOST = "http://download.magenta.tensorflow.org/datasets/nsynth"
# Magenta publishes no checksum.
PARTS = [
    Archive(
        split, {f"{HOST}/nsynth-{split}.jsonwav.tar.gz": None}, f"nsynth-{split}", "examples.json"
    )
    for split in SPLITS
]
#: Field of a note in ``examples.json`` by task, and its values in upstream's order.
TASKS = {"family": "instrument_family_str", "source": "instrument_source_str", "pitch": "pitch"}
LABELS = {
    "family": (
        *("bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string"),
        *("synth_lead", "vocal"),
    ),
    "source": ("acoustic", "electronic", "synthetic"),
    "pitch": tuple(str(pitch) for pitch in range(128)),
}


def prepare(work: Path, *, source: str | None = None, task: str = "family") -> SourceClips:
    """Lists the notes, split as published; the group is the instrument.

    Args:
        work: Folder to unpack into.
        source: Folder that holds ``nsynth-{train,valid,test}`` or their archives.
        task: ``"family"`` (11 classes), ``"source"`` (3) or ``"pitch"`` (MIDI number).

    Raises:
        ConfigError: If ``task`` is unknown or ``source`` is not given.
        DataError: If parts are missing, a JSON file is damaged, or a training instrument is in
            another split.
    """
    if task not in TASKS:
        raise ConfigError(f"task={task!r}; expected one of {', '.join(TASKS)}")
    folders = open_parts(PARTS, work, source)
    clips = [clip for split in SPLITS for clip in _notes(folders[split], split, TASKS[task])]
    trained = {clip.group for clip in clips if clip.split == "train"}
    if shared := sorted({clip.group for clip in clips if clip.split != "train"} & trained):
        raise DataError(
            f"{len(shared)} instruments of validation or test are in training too: "
            f"{', '.join(shared[:5])}; this is not NSynth's split, fetch it again"
        )
    return SourceClips(link_parts(folders, work), clips, LABELS[task])


def _notes(folder: Path, split: str, field: str) -> Iterator[SourceClip]:
    def reduce(entry: dict[str, Any]) -> Any:
        """Keeps three values of each note while reading; the whole file would need gigabytes."""
        if "note_str" not in entry:
            return entry
        return entry["note_str"], str(entry[field]), entry["instrument_str"]

    try:
        with (folder / "examples.json").open(encoding="utf-8") as file:
            notes = list(json.load(file, object_hook=reduce).values())
        for name, label, instrument in notes:
            yield SourceClip(f"{split}/audio/{name}.wav", label, split, instrument)
    except (KeyError, ValueError, AttributeError) as error:
        raise DataError(
            f"{folder / 'examples.json'}: cannot be read ({error!r}); fetch it again"
        ) from error


if __name__ == "__main__":
    main("nsynth", prepare)
