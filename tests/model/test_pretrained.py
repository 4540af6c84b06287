"""Pretrained encoders on tiny random models of each architecture, without a network."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from spaudio.errors import AudioError, CheckpointError, ConfigError
from spaudio.export.check import pad
from spaudio.export.whisper import WhisperFrames
from spaudio.model.pretrained.adapt import Adaptation
from spaudio.model.pretrained.adapted import AdaptedClassifier
from spaudio.model.pretrained.encoded import CachedOutputs, EncodedFrontEnd, is_quiet
from spaudio.model.pretrained.encoded_augment import EncodedAugment
from spaudio.model.pretrained.load_encoder import load_encoder
from spaudio.model.pretrained.pretrained_encoder import LogMelInput, PretrainedEncoder
from spaudio.model.pretrained.whisper_encoder import SILENCE_BEFORE
from spaudio.tokens.augment import AugmentConfig
from spaudio.tokens.batch import Example, collate
from spaudio.tokens.config import TokenConfig
from spaudio.tokens.dc_offset import without_offset
from tests.fixtures.tiny_encoders import ENCODERS, save_encoder

RNG = np.random.default_rng(0)
CLIPS = [(RNG.standard_normal(n) * 0.1).astype(np.float32) for n in (12_000, 5_137, 60)]
BANK = {"name": "bank", "num_filters": 3, "kernel_size": 4}
SHARED = Path(__file__).resolve().parents[3] / "shared" / "models" / "whisper-tiny.en-encoder"


def tiny_base(folder: Path, name: str = "whisper") -> PretrainedEncoder:
    return load_encoder(str(folder if folder.joinpath("config.json").exists() else
                         save_encoder(name, folder)))  # fmt: skip


def read(model: AdaptedClassifier, plain: PretrainedEncoder, *clips: np.ndarray) -> torch.Tensor:
    """Logits of clips in one padded batch; ``plain`` is the encoder, not adapted."""
    front_end = EncodedFrontEnd(TokenConfig(), plain, model.cached)
    batch = collate([Example(front_end.restore(front_end.extract(c)), 0, 0) for c in clips])
    with torch.inference_mode():
        logits: torch.Tensor = model(batch.tokens, batch.padding_mask)
    return logits


def shake(model: AdaptedClassifier) -> None:
    """Gives what is trained random values."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)


def compare_with_transformers(base: PretrainedEncoder, *, last_is_kept: bool) -> None:
    """Checks the hidden states of a clip, from the first on and from the second on."""
    read = base.extractor(CLIPS[0], sampling_rate=16_000, return_tensors="pt").input_values
    with torch.inference_mode():
        found = base.net(read, output_hidden_states=True)
    last = found.last_hidden_state if last_is_kept else found.hidden_states[-1]
    theirs = [state[0] for state in (*found.hidden_states[:-1], last)]
    for first in (0, 1):
        ours = list(base.hidden_states(base.inputs(CLIPS[0]), len(theirs) - first, first)[0])
        torch.testing.assert_close(ours, theirs[first:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_clips_alone_and_in_a_padded_batch(name: str, tmp_path: Path) -> None:
    plain = tiny_base(tmp_path, name)
    if name != "whisper":  # which reads clips of 30 s alone
        compare_with_transformers(plain, last_is_kept=name != "sew")
    for way in ("probe", "full", "filters"):
        options = BANK if way == "filters" else {"name": "none"}
        adaptation = Adaptation(way, "attention", options)
        model = AdaptedClassifier(copy.deepcopy(plain), adaptation, 3).eval()
        shake(model)
        together = read(model, plain, *CLIPS)
        alone = torch.cat([read(model, plain, clip) for clip in CLIPS])
        torch.testing.assert_close(together, alone, atol=2e-4, rtol=1e-3)
        assert len({tuple(row) for row in alone.tolist()}) > 1


@pytest.mark.parametrize("name", ENCODERS)
def test_what_is_trained_begins_as_the_identity(name: str, tmp_path: Path) -> None:
    plain = tiny_base(tmp_path, name)
    original = AdaptedClassifier(copy.deepcopy(plain), Adaptation(), 3).eval()
    shake(original)
    expected = read(original, plain, *CLIPS)
    counts = {}
    for way, layers in [("filters", [0]), ("lora", None), ("bitfit", [1]), ("full", None)]:
        options = BANK if way == "filters" else {"name": "none"}
        adaptation = Adaptation(way, filter_options=options, layers=layers, lora_rank=2)
        model = AdaptedClassifier(copy.deepcopy(plain), adaptation, 3).eval()
        model.head.load_state_dict(original.head.state_dict())
        torch.testing.assert_close(read(model, plain, *CLIPS), expected, atol=5e-3, rtol=0)
        counts[way] = model.trained_parameters()
        # Gradients reach all that is trained, and nothing else.
        model.train()
        assert not model.base.net.training
        shake(model)
        front_end = EncodedFrontEnd(TokenConfig(), plain, model.cached)
        frames = front_end.restore(front_end.extract(CLIPS[0]))
        model(torch.from_numpy(frames)[None]).square().sum().backward()
        for key, parameter in model.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, key
    assert max(counts.values()) == counts["full"]


@pytest.mark.parametrize(
    ("name", "seconds"), [("whisper", 0.02), ("wav2vec2", 0.01), ("sew", 0.02)]
)
def test_an_encoder_knows_the_length_of_its_tokens(
    name: str, seconds: float, tmp_path: Path
) -> None:
    base = tiny_base(tmp_path, name)
    assert base.token_seconds == seconds
    counts = []
    for clip in (CLIPS[0], np.tile(CLIPS[0], 3)):  # 0.75 s, 2.25 s
        inputs = torch.from_numpy(base.inputs(clip))[None]
        tokens, _ = base.first_tokens(inputs, torch.zeros(inputs.shape[:2], dtype=torch.bool))
        counts.append(tokens.shape[1])
    assert counts[1] - counts[0] == pytest.approx(1.5 / seconds, abs=1)


def test_the_tokens_of_ast_run_band_after_band(tmp_path: Path) -> None:
    base = tiny_base(tmp_path, "ast")
    assert base.token_seconds == 0.08
    frames, none = torch.randn(1, 128, 16), torch.zeros(1, 128, dtype=torch.bool)
    later = frames.roll(8, dims=1)  # frames of 10 ms
    zero, one, two = (base.first_tokens(x, none)[0][0, 2:] for x in (0 * frames, frames, later))
    for band in (slice(0, 16), slice(16, 32)):
        torch.testing.assert_close((two - zero)[band], (one - zero)[band].roll(1, dims=0))


@pytest.mark.parametrize("name", ENCODERS)
def test_a_dc_offset_has_no_effect(name: str, tmp_path: Path) -> None:
    """Neither on what is cached nor on the frames of an exported model."""
    base = tiny_base(tmp_path, name)
    front_end = EncodedFrontEnd(TokenConfig(), base, CachedOutputs("inputs"))
    clips = [without_offset(clip) for clip in CLIPS[:2]]
    shifted = [clip + np.float32(0.02) for clip in clips]
    expected = [front_end.restore(front_end.extract(clip)) for clip in clips]
    for clip, frames in zip(shifted, expected, strict=True):
        for offset in (None, 0.02):
            found = front_end.restore(front_end.extract(clip, offset))
            np.testing.assert_allclose(found, frames, atol=0.01 * np.abs(frames).max())
    if name != "whisper":
        return
    frames, padding = WhisperFrames(base.extractor)(*pad(shifted))
    for row, mask, own in zip(frames, padding, expected, strict=True):
        np.testing.assert_allclose(row[~mask][: len(own)], own, atol=5e-3)


@pytest.mark.parametrize("pause", [1e-3, 0.1])
def test_pauses_are_not_pooled_over(pause: float, tmp_path: Path) -> None:
    """Neither faint ones nor those with background noise, 20 dB below the sound."""
    base = tiny_base(tmp_path, "whisper")
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    clip = np.concatenate([noise, np.float32(pause) * noise])
    inputs = torch.from_numpy(base.inputs(clip))[None]
    whole = torch.zeros(inputs.shape[:2], dtype=torch.bool)
    quiet = base.quiet(inputs, whole)
    assert quiet is not None
    padding = whole[:, ::2]
    pooled = ~base.unpooled(padding, quiet)[0]
    assert abs(int(pooled.sum()) - 50) <= 1  # 1 s of 20 ms
    assert pooled.nonzero().max() - pooled.nonzero().min() == pooled.sum() - 1
    # In a padded batch it is the same; a clip of which nothing would be left is pooled whole.
    longer = torch.nn.functional.pad(inputs, (0, 0, 0, 40))
    outside = torch.nn.functional.pad(whole, (0, 40), value=True)
    found = base.quiet(longer, outside)
    assert found is not None
    assert torch.equal(~base.unpooled(outside[:, ::2], found)[0, : len(pooled)], pooled)
    everything = torch.ones_like(quiet)
    assert torch.equal(base.unpooled(padding, everything), base.around(padding))
    assert load_encoder(save_encoder("wav2vec2", tmp_path / "other")).quiet(inputs, whole) is None


def test_the_labels_of_mixed_clips_count_what_the_head_pools(tmp_path: Path) -> None:
    plain = tiny_base(tmp_path)
    model = AdaptedClassifier(tiny_base(tmp_path), Adaptation("lora"), 3).eval()
    front_end = EncodedFrontEnd(TokenConfig(), plain, model.cached)
    clip = CLIPS[0] * (np.arange(len(CLIPS[0])) % 4000 < 2000)  # with pauses
    frames = [front_end.restore(front_end.extract(one)) for one in (clip, CLIPS[1])]
    batch = collate([Example(one, 0, 0) for one in frames])
    pooled = front_end.pooled(batch.tokens, batch.padding_mask)
    assert torch.equal(pooled, ~model.hidden_states(batch.tokens, batch.padding_mask)[1])
    assert (pooled.sum(dim=1) < (~batch.padding_mask).sum(dim=1)).all()
    cached = AdaptedClassifier(tiny_base(tmp_path), Adaptation("full"), 3).cached
    full = EncodedFrontEnd(TokenConfig(), plain, cached)
    inputs = collate([Example(full.restore(full.extract(one)), 0, 0) for one in (clip, CLIPS[1])])
    assert torch.equal(full.pooled(inputs.tokens, inputs.padding_mask)[:, ::2], pooled)
    # In a mix, a pause stays quiet where the other clip has a pause or has ended.
    ended = is_quiet(batch.tokens) | batch.padding_mask
    assert (ended & ~batch.padding_mask).any()
    assert batch.padding_mask.any()
    assert torch.equal(is_quiet(batch.tokens.mean(dim=0)), ended.all(dim=0))


@pytest.mark.parametrize(
    ("way", "pooling", "layers"),
    [
        ("filters", "mean_std", None),
        ("filters", "mean_std", [1]),
        ("lora", "mean_std", [1]),
        ("bitfit", "attention", None),
        ("probe", "attention", None),
        ("full", "mean_std", None),
    ],
)
def test_a_model_can_round_as_the_cache_does(
    way: str, pooling: str, layers: list[int] | None, tmp_path: Path
) -> None:
    plain = tiny_base(tmp_path)
    options = BANK if way == "filters" else {"name": "none"}
    adaptation = Adaptation(way, pooling, options, layers=layers, states="all")
    model = AdaptedClassifier(tiny_base(tmp_path), adaptation, 3).eval()
    shake(model)
    torch.nn.init.normal_(model.head.linear.weight, std=30)  # small differences count
    clip = without_offset(CLIPS[0])
    inputs = torch.from_numpy(plain.inputs(clip))[None]
    padding = torch.zeros(inputs.shape[:2], dtype=torch.bool)
    expected = read(model, plain, clip)
    with torch.inference_mode():
        exact = model.classify(model.head.pool(*model._run_whole(inputs, padding)))
        model.round_as_cached()
        found = model.from_inputs(inputs, padding)
    assert (exact - expected).abs().max() > 1e-3
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-6)


def test_a_clip_of_almost_30_seconds_is_read_to_its_end(tmp_path: Path) -> None:
    base = tiny_base(tmp_path, "whisper")
    clip = np.zeros(16_000 * 299 // 10, np.float32)  # 2,990 of at most 3,000 frames
    clip[-1600:] = np.random.default_rng(0).normal(0, 0.1, 1600)
    inputs = base.inputs(clip)
    assert len(inputs) == 3000
    batch, whole = torch.from_numpy(inputs)[None], torch.zeros(1, 3000, dtype=torch.bool)
    pooled = ~base.unpooled(whole[:, ::2], base.quiet(batch, whole))[0]
    first, last = (3 + 2980) // 2, (3 + 2990) // 2  # the tokens of the sound
    assert set(range(first + 1, last)) <= set(pooled.nonzero().flatten().tolist())
    assert pooled.sum() <= last - first + 3
    assert base.log_mel is not None
    louder = EncodedAugment(AugmentConfig(gain=1.0), base.log_mel)
    varied = louder.vary(inputs, np.random.default_rng(0))
    assert varied.shape == inputs.shape
    assert np.ptp(varied[2985] - inputs[2985]) < 1e-5 < np.abs(varied[2985] - inputs[2985]).max()


@pytest.mark.parametrize("name", ["whisper", "ast"])
def test_augmentation_has_the_units_of_the_clip(name: str, tmp_path: Path) -> None:
    base = tiny_base(tmp_path, name)
    clip = CLIPS[0]
    inputs, rng = base.inputs(clip), np.random.default_rng(0)
    about = base.log_mel
    assert about is not None
    # A gain of one nat of power is that of a louder clip.
    gain = EncodedAugment(AugmentConfig(gain=1.0), about)
    drawn = np.random.default_rng(1).normal(0, 1.0)
    louder = base.inputs(clip * np.float32(np.exp(drawn / 2)))
    found = gain.vary(inputs, np.random.default_rng(1))
    whole = slice(None, about.before + 70)  # windows that do not reach beyond its 0.75 s
    np.testing.assert_allclose(found[whole], louder[whole], atol=2e-3)
    # Tempo and shift move the clip alone, and the encoder takes what comes of it.
    moved = EncodedAugment(AugmentConfig(tempo=0.3, time_shift=0.2, warp=0.1), about)
    varied = [moved.vary(inputs, rng) for _ in range(20)]
    for one in varied:
        assert not np.diff(one[: max(about.before - 2, 0)], axis=0).any()
        assert np.ptp(one[-5:]) < 1e-6
    lengths = {len(one) for one in varied}
    assert lengths == {about.most} if name == "ast" else 5 < len(lengths) < about.most
    assert max(lengths) <= about.most
    masked = EncodedAugment(AugmentConfig(mel_masks=1, mel_mask=20), about).mask(inputs, rng)
    changed = np.flatnonzero((masked != inputs).any(axis=1))
    own = slice(changed[0], changed[-1] + 1)
    assert np.isin(np.arange(about.before + 1, about.before + 70), changed).all()
    assert len(masked[own]) < 80  # 0.75 s of 10 ms, not the silence or padding around them
    hidden = np.ptp(masked[own], axis=0) < 1e-6
    assert 0 < hidden.sum() <= 20
    np.testing.assert_allclose(masked[own].mean(axis=0), inputs[own].mean(axis=0), atol=1e-4)


def test_tempo_interpolates_the_input_of_an_encoder() -> None:
    ramp = np.linspace(0, 1, 50, dtype=np.float32)[:, None].repeat(3, axis=1)
    augment = EncodedAugment(AugmentConfig(tempo=0.3), LogMelInput(nats=1.0, most=100))
    varied = augment.vary(ramp, np.random.default_rng(0))[:, 0]
    assert len(varied) != len(ramp)
    np.testing.assert_allclose(varied, np.linspace(0, 1, len(varied)), atol=1e-5)
    # Input of full length has no marked silence at its ends. If it is shortened, silence follows.
    about = LogMelInput(nats=1.0, most=50, before=2, after=5, range=2.0)
    shorter = EncodedAugment(AugmentConfig(tempo=0.3), about)
    for seed in range(5):
        varied = shorter.vary(ramp, np.random.default_rng(seed))[:, 0]
        assert (len(varied), varied[0]) == (50, 0)
        assert set(varied[int(np.argmax(varied)) + 1 :]) <= {np.float32(-1)}  # 2 below the largest
        # Shorter input keeps its marked silence: it does not become of full length.
        assert len(shorter.vary(ramp[:48], np.random.default_rng(seed))) <= 48


@pytest.mark.parametrize("layers", [None, [1]])
def test_weights_hold_what_was_trained_and_fit_one_encoder(
    layers: list[int] | None, tmp_path: Path
) -> None:
    adaptation = Adaptation("filters", filter_options=BANK, layers=layers)
    model = AdaptedClassifier(tiny_base(tmp_path / "base"), adaptation, 3).eval()
    shake(model)
    held = model.state_dict()
    assert not [key for key in held if key.startswith("base.") and "token_filter" not in key]
    loaded = AdaptedClassifier(load_encoder(str(tmp_path / "base")), adaptation, 3).eval()
    loaded.load_state_dict(held)
    plain = load_encoder(str(tmp_path / "base"))
    assert torch.equal(read(loaded, plain, *CLIPS), read(model, plain, *CLIPS))
    other = load_encoder(str(save_encoder("whisper", tmp_path / "other", seed=1)))
    with pytest.raises(CheckpointError, match="trained on an encoder with SHA-256"):
        AdaptedClassifier(other, adaptation, 3).load_state_dict(held)


def test_an_encoder_that_cannot_be_used_is_one_line_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")
    empty = tmp_path / "empty"
    empty.mkdir()
    text = tmp_path / "text"
    config = transformers.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    transformers.BertModel(config).save_pretrained(text)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    pickled = save_encoder("whisper", tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    for source, said in [
        (empty, "cannot be loaded"),
        (tmp_path / "nowhere", "there is no such folder; give a folder with config.json"),
        ("./nowhere", "there is no such folder"),
        ("nowhere", "there is no such folder"),
        (text, "supported are whisper"),
        (pickled, "model.safetensors"),
        ("spaudio-tests/no-such-model", "needs a network the first time"),
    ]:
        with pytest.raises(ConfigError, match=said) as caught:
            load_encoder(str(source))
        assert "\n" not in str(caught.value)
    base = tiny_base(tmp_path / "whisper")
    with pytest.raises(AudioError, match=r"31\.0 s is more than the 30 s"):
        base.inputs(np.zeros(31 * 16_000, np.float32))
    longest = np.zeros(int(30.65 * 16_000), np.float32)  # of GTZAN
    assert len(base.inputs(longest)) == 3000  # the rest is cut off
    with pytest.raises(AudioError, match="more than the 60 s"):
        tiny_base(tmp_path / "wavlm", "wavlm").inputs(np.zeros(62 * 16_000, np.float32))
    with pytest.raises(ConfigError, match="has layers 0 to 1"):
        AdaptedClassifier(base, Adaptation("filters", layers=[2], filter_options=BANK), 3)
    with pytest.raises(ConfigError, match="unknown filter 'nope'"):
        AdaptedClassifier(base, Adaptation("filters", filter_options={"name": "nope"}), 3)
    for way, options in [("filters", {"name": "none"}), ("probe", BANK), ("magic", BANK)]:
        with pytest.raises(ConfigError, match="adapt="):
            Adaptation(way, filter_options=options)


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_the_hash_is_that_of_all_that_decides_the_outputs(tmp_path: Path) -> None:
    first = tiny_base(tmp_path / "first", "wav2vec2")
    weights = tmp_path / "first/model.safetensors"
    kept = load_file(weights)
    assert kept.pop("masked_spec_embed") is not None  # as in wav2vec2-base-960h
    save_file(kept, weights, {"format": "pt"})
    without = load_encoder(str(tmp_path / "first"))
    assert load_encoder(str(tmp_path / "first")).hash == without.hash != first.hash
    ast = tiny_base(tmp_path / "ast", "ast")
    edit(tmp_path / "ast/preprocessor_config.json", mean=-3.0)
    other = load_encoder(str(tmp_path / "ast"))
    edit(tmp_path / "ast/config.json", num_attention_heads=4)
    assert len({ast.hash, other.hash, load_encoder(str(tmp_path / "ast")).hash}) == 3


@pytest.mark.parametrize(
    ("name", "file", "changes", "said"),
    [
        (
            "whisper",
            "config.json",
            {"num_mel_bins": 128},
            "cannot be loaded into",
        ),
        ("whisper", "preprocessor_config.json", {"feature_size": 128}, "has feature_size=128, but"),
        ("ast", "preprocessor_config.json", {"max_length": 64}, "has max_length=64, but"),
        ("wav2vec2", "config.json", {"conv_stride": [10]}, "cannot be loaded.*convolutional"),
        ("wav2vec2", "config.json", {"hidden_size": "16"}, "cannot be loaded.*expected int"),
        (
            "wav2vec2",
            "preprocessor_config.json",
            {"feature_extractor_type": "WhisperFeatureExtractor"},
            "wav2vec2 needs a Wav2Vec2FeatureExtractor",
        ),
    ],
)
def test_files_of_different_models_are_refused(
    name: str, file: str, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    edit(save_encoder(name, tmp_path) / file, **changes)
    with pytest.raises(ConfigError, match=said) as caught:
        load_encoder(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_classifier_of_whisper_lends_its_encoder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tiny_base(tmp_path)
    model = transformers.WhisperForAudioClassification.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path)  # without a decoder
    found = load_encoder(str(tmp_path)).net.state_dict()
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(found[name], value), name


def test_what_is_not_read_is_not_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, config, settings = ENCODERS["wav2vec2"]
    monkeypatch.setitem(ENCODERS, "x", (model, config, settings | {"add_adapter": True}))
    whole = AdaptedClassifier(tiny_base(tmp_path, "x"), Adaptation("full"), 3)
    assert not any(p.requires_grad for p in whole.base.net.adapter.parameters())


def test_ast_without_normalisation_is_augmented_in_its_own_units(tmp_path: Path) -> None:
    edit(save_encoder("ast", tmp_path) / "preprocessor_config.json", do_normalize=False)
    base = tiny_base(tmp_path)
    about = base.log_mel
    assert about is not None
    found = EncodedAugment(AugmentConfig(gain=1.0), about).vary(
        base.inputs(CLIPS[0]), np.random.default_rng(1)
    )
    drawn = np.random.default_rng(1).normal(0, 1.0)
    louder = base.inputs(CLIPS[0] * np.float32(np.exp(drawn / 2)))
    np.testing.assert_allclose(found, louder, atol=2e-3)


def test_states_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    base = tiny_base(tmp_path)
    torch.nn.init.constant_(base.layers[0].fc1.weight, torch.nan)
    with pytest.raises(ConfigError, match="weights may be damaged"):
        EncodedFrontEnd(TokenConfig(), base, CachedOutputs("statistics", 3)).extract(CLIPS[0])


@pytest.mark.skipif(not SHARED.is_dir(), reason="the weights of Whisper are not beside the project")
def test_whisper_on_its_own_length_is_close_to_whisper_on_30_seconds() -> None:
    base = load_encoder(str(SHARED))
    t = np.arange(16_000 * 2) / 16_000
    clip = (0.1 * np.sin(2 * np.pi * (200 + 300 * t) * t)).astype(np.float32)
    frames = base.inputs(clip)
    before = np.zeros(SILENCE_BEFORE * 160, np.float32)
    padded = np.concatenate([before, clip])
    whole = base.extractor(padded, sampling_rate=16_000, return_tensors="pt").input_features
    # The frames are exactly those of the clip within 30 s.
    np.testing.assert_allclose(frames, whole[0, :, : len(frames)].T, atol=2e-4)
    with torch.inference_mode():
        theirs = base.net(whole).last_hidden_state[0, : len(frames) // 2]
    ours = base.hidden_states(frames, base.states)[0][-1]
    own = ~base.around(torch.zeros(1, len(ours), dtype=torch.bool))[0]
    assert int(own.sum()) == 100  # 2 s of 20 ms
    assert torch.nn.functional.cosine_similarity(ours[own], theirs[own]).mean() > 0.8
