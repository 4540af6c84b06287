"""Properties of manifests, settings and the package's doors, over generated inputs."""

import copy
import dataclasses
import functools
import json
import string
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from spaudio.audio import Clip, manifest_hash, read_manifest, write_manifest
from spaudio.audio.manifest import SPLITS
from spaudio.errors import ConfigError, DataError
from spaudio.experiment.schemas import read_settings
from spaudio.experiment.settings import AudioSettings
from spaudio.model.classifier import Classifier
from spaudio.model.encoder import EncoderConfig
from tests.fixtures.tiny_run import compose
from tests.fuzz.__main__ import RUNS
from tests.fuzz.targets import TARGETS, seeds

# Seeded, so that the suite says the same each time; `make fuzz` is the one that searches.
STEADY = settings(
    derandomize=True,
    max_examples=60,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SAFE = st.text(string.ascii_letters + "0123456789 _.-'é語\udcff", min_size=1, max_size=8)
PATHS = (
    st.lists(SAFE, min_size=1, max_size=3)
    .map("/".join)
    .filter(lambda path: ".." not in path.split("/"))
)
CLIPS = st.builds(
    Clip,
    path=PATHS,
    label=SAFE,
    split=st.sampled_from(SPLITS),
    group=SAFE,
    seconds=st.floats(1e-6, 1e8),
    sample_rate=st.integers(1, 768_000),
    fold=st.none() | st.integers(0, 20),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@STEADY
@given(st.lists(CLIPS, max_size=5, unique_by=lambda clip: clip.path))
def test_every_manifest_comes_back(tmp_path: Path, clips: list[Clip]) -> None:
    write_manifest(tmp_path / "m.jsonl", clips)
    assert read_manifest(tmp_path / "m.jsonl") == clips
    assert manifest_hash(clips) == manifest_hash(read_manifest(tmp_path / "m.jsonl"))


@STEADY
@given(CLIPS, st.sampled_from([field.name for field in dataclasses.fields(Clip)]), JSON)
@example(Clip("a", "b", "train", "c", 1.0, 1), "seconds", 10**400)
@example(Clip("a", "b", "train", "c", 1.0, 1), "path", "a\0b")
@example(Clip("a", "b", "train", "c", 1.0, 1), "path", "\ud800")
def test_a_field_of_any_value_is_kept_or_named(
    tmp_path: Path, clip: Clip, field: str, value: Any
) -> None:
    record = dataclasses.asdict(clip) | {field: value}
    (tmp_path / "m.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    try:
        (read,) = read_manifest(tmp_path / "m.jsonl")
    except DataError as error:
        said = str(error)
    else:
        assert dataclasses.asdict(read) == record
        return
    assert f"field {field!r}" in said


@functools.cache
def composed() -> dict[str, Any]:
    return compose("folder", "filter=bank").as_dict()


def near(old: Any) -> st.SearchStrategy[Any]:
    """Values of the same type, most of them plausible."""
    if isinstance(old, bool):
        return st.booleans()
    return st.integers(-2, 300) if isinstance(old, int) else st.floats(-0.5, 2)


GROUPS = ("tokens", "trainer", "optim", "augment", "model", "filter", "validation", "segments")


@settings(STEADY, max_examples=100)
@given(st.data())
def test_a_setting_of_any_value_is_taken_or_named(data: st.DataObject) -> None:
    content = copy.deepcopy(composed())
    group = data.draw(st.sampled_from(GROUPS))
    field = data.draw(st.sampled_from(sorted(content[group])))
    value = content[group][field] = data.draw(JSON | near(content[group][field]))
    try:
        read = read_settings(content)
    except ConfigError as error:
        said = str(error)
    else:
        assert isinstance(read, AudioSettings)
        kept = read.as_dict()[group][field]
        # A text may be given as a number; milliseconds become a kernel_size.
        assert kept == value or str(kept) == str(value) or field == "milliseconds"
        return
    assert field in said or group in said or "f_max" in said or "heads" in said


OPTIONS = {
    "num_filters": st.integers(-2, 5),
    "kernel_size": st.integers(-2, 40),
    "gains": st.sampled_from(["shared", "per_dim", "each"]),
    "activation": st.sampled_from(["relu", "gelu", "tanh"]),
    "levels": st.integers(-1, 4),
    "scales": st.lists(st.lists(st.integers(-1, 4), max_size=3), max_size=2),
    "width": st.sampled_from([0, 4, 6]),
}


@settings(STEADY, max_examples=40)
@given(
    name=st.sampled_from(["bank", "fir", "depthwise", "haar", "multiscale", "adaptive", "bnak"]),
    options=st.dictionaries(st.sampled_from(sorted(OPTIONS)), st.none(), max_size=2),
    causal=st.booleans(),
    tokens=st.integers(1, 3),
    data=st.data(),
)
def test_filters_of_any_settings_work_or_are_refused(
    name: str, options: dict[str, None], causal: bool, tokens: int, data: st.DataObject
) -> None:
    """M = 0, even kernels, kernels longer than the clip, a batch of one."""
    drawn = {key: data.draw(OPTIONS[key], label=key) for key in sorted(options)}
    shape = EncoderConfig(dim=8, layers=1, heads=2, causal=causal)
    try:
        model = Classifier(3, 2, shape, {"name": name, **drawn})
    except ConfigError as error:
        said = str(error)
    else:
        logits = model(torch.randn(1, tokens, 3))
        assert logits.shape == (1, 2)
        assert logits.isfinite().all()
        return
    assert said.startswith("filter: ")


def test_every_target_is_fuzzed() -> None:
    assert set(RUNS) == set(TARGETS)


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_damaged_inputs_are_refused_or_sound(target: str, tmp_path: Path) -> None:
    begin = list(seeds(target, tmp_path))

    @settings(STEADY, max_examples={"settings": 5, "run": 25}.get(target, 100))
    @given(
        content=st.sampled_from(begin),
        edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
        end=st.floats(0, 1) | st.just(1.0),
        header=st.booleans(),
    )
    def hold(content: bytes, edits: list[tuple[float, int]], end: float, header: bool) -> None:
        # The first line of these names the file that is damaged, and stays.
        keep = content.index(b"\n") + 1 if target in ("run", "cache") else 0
        damaged = bytearray(content[keep:])
        last = len(damaged) - 1
        for place, byte in edits if damaged else []:
            damaged[int(place * min(99, last) if header else place * last)] = byte
        del damaged[round(end * len(damaged)) :]
        TARGETS[target](content[:keep] + bytes(damaged), tmp_path)

    hold()
