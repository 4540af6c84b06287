"""Audio files: finding, decoding, checking, listing in a manifest, splitting.

Needs numpy, soundfile, soxr, filelock and rich, but not torch.
"""

from spaudio.audio.decode import AudioInfo, decode, load_audio, probe, stream_audio
from spaudio.audio.manifest import Clip, SourceClip, manifest_hash, read_manifest, write_manifest
from spaudio.audio.prepare import Prepared, SourceClips, prepare

__all__ = [
    "AudioInfo",
    "Clip",
    "Prepared",
    "SourceClip",
    "SourceClips",
    "decode",
    "load_audio",
    "manifest_hash",
    "prepare",
    "probe",
    "read_manifest",
    "stream_audio",
    "write_manifest",
]
