"""From audio file to manifest to waveform: decoding, checking, splitting, downloading.

Needs numpy, soundfile, soxr and rich, and never torch.
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
