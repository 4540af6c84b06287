"""Filters to a folder and back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm

from spaudio.filters import (
    DepthwiseFilter,
    FilterBank,
    FIRFilter,
    MultiScaleFilterBank,
    TokenFilter,
    find_filters,
    insert_filters,
    load_filters,
)
from tests.filters.cases import CASES, DIM, build, spread

pytest.importorskip("huggingface_hub")


@pytest.mark.parametrize(
    ("case", "dtype"), spread(CASES, [torch.float32, torch.float64, torch.bfloat16])
)
def test_filter_round_trip(case: str, dtype: torch.dtype, tmp_path: Path) -> None:
    filter = build(case, causal=True, dtype=dtype)
    filter.save_pretrained(tmp_path)
    loaded = type(filter).from_pretrained(tmp_path)
    assert loaded.config() == filter.config()
    x = torch.randn(2, 9, DIM).to(dtype)
    assert torch.equal(loaded(x), filter(x))
    assert {path.suffix for path in tmp_path.iterdir()} <= {".safetensors", ".json", ".md"}


def test_saving_draws_nothing_and_takes_sizes_of_numpy(tmp_path: Path) -> None:
    filter = FilterBank(np.int64(8), np.int64(4))  # type: ignore[arg-type]
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    filter.save_pretrained(tmp_path)
    loaded = FilterBank.from_pretrained(tmp_path)
    assert torch.equal(torch.rand(3), expected)
    assert loaded.config() == filter.config()
    assert type(loaded.config()["num_filters"]) is int


def test_filters_of_a_model_round_trip(tmp_path: Path) -> None:
    def model() -> nn.TransformerEncoder:
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16)
        return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()

    trained, x = model(), torch.randn(12, 3, 8)
    handle = insert_filters(
        trained, "layers", num_filters=5, kernel_size=4, batch_first=False, zero_init=False
    )
    handle.save_pretrained(tmp_path)
    other = model()
    loaded = load_filters(other, tmp_path)
    assert torch.equal(other(x), trained(x))
    assert loaded.layouts == handle.layouts
    loaded.remove()
    assert torch.equal(other(x), model()(x))
    with torch.device("meta"):
        empty = model()
    load_filters(empty, tmp_path)
    empty.load_state_dict(model().state_dict(), strict=False, assign=True)
    assert torch.equal(empty(x), trained(x))

    layer = nn.TransformerEncoderLayer(8, 2, 16)
    shallow = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    with pytest.raises(ValueError, match=r"no layer matches 'layers\.1'"):
        load_filters(shallow, tmp_path)
    assert "layers.0.token_filter.gains" not in shallow.state_dict()


def test_sharded_filters_are_saved_whole(tmp_path: Path) -> None:
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_gloo_available():
        pytest.skip("torch has no gloo")
    from torch.distributed.fsdp import fully_shard

    model = nn.Sequential(nn.Linear(4, 4))
    handle = insert_filters(model, "0", zero_init=False)
    expected = {k: v.clone() for k, v in handle.filters["0"].state_dict().items()}
    store = f"file://{tmp_path}/store"
    distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        fully_shard(model, mesh=distributed.device_mesh.init_device_mesh("cpu", (1,)))
        handle.save_pretrained(tmp_path / "saved")
    finally:
        distributed.destroy_process_group()
    loaded = (
        load_filters(nn.Sequential(nn.Linear(4, 4)), tmp_path / "saved").filters["0"].state_dict()
    )
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], value) for key, value in expected.items())


def test_each_layer_gets_its_own_weights_however_many_there_are(tmp_path: Path) -> None:
    def layers() -> nn.ModuleDict:
        return nn.ModuleDict({f"{i}": nn.Linear(4, 4) for i in range(12)})  # "10" sorts before "2"

    trained, other = layers(), layers()
    for i, filter in enumerate(insert_filters(trained, "*", "depthwise", dim=4).filters.values()):
        nn.init.constant_(filter.kernels, i)
    find_filters(trained).save_pretrained(tmp_path)
    loaded = load_filters(other, tmp_path)
    assert list(loaded.filters) == [f"{i}" for i in range(12)]
    for i, filter in enumerate(loaded.filters.values()):
        assert (filter.kernels == i).all()


def test_damaged_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    for config in (None, "{}", '{"model_type": "whisper"}'):
        if config is not None:
            (tmp_path / "config.json").write_text(config)
        with pytest.raises(ValueError, match=r"no config\.json of saved filters"):
            FilterBank.from_pretrained(tmp_path)
    FilterBank(5, 3).save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"name"', '"device"'))
    with pytest.raises(ValueError, match=r"'bank' of config\.json has no name"):
        FilterBank.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(text.replace('"causal"', '"device": "meta", "causal"'))
    with pytest.raises(ValueError, match="names a device"):
        FilterBank.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "model.safetensors").rename(tmp_path / "away")
    with pytest.raises(ValueError, match="a file is missing"):
        FilterBank.from_pretrained(tmp_path)
    (tmp_path / "away").rename(tmp_path / "model.safetensors")
    weights = (tmp_path / "model.safetensors").read_bytes()
    for damaged in (weights[:-4], b"version https://git-lfs.github.com/spec/v1"):
        (tmp_path / "model.safetensors").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged, or a pointer of Git LFS"):
            FilterBank.from_pretrained(tmp_path)
    build("adaptive", causal=True).save_pretrained(tmp_path / "adaptive")
    DepthwiseFilter(5, 3).save_pretrained(tmp_path / "depthwise")
    (tmp_path / "adaptive" / "model.safetensors").replace(
        tmp_path / "depthwise" / "model.safetensors"
    )
    with pytest.raises(ValueError, match="do not fit its config"):
        DepthwiseFilter.from_pretrained(tmp_path / "depthwise")


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    FIRFilter(5, 3).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"with TokenFilter\.from_pretrained"):
        load_filters(nn.Linear(4, 4), tmp_path)
    assert isinstance(TokenFilter.from_pretrained(tmp_path), FIRFilter)
    with pytest.raises(ValueError, match=r"there is no folder .*/missing"):
        load_filters(nn.Linear(4, 4), tmp_path / "missing")
    with pytest.raises(ValueError, match=r"there is no folder missing; .*OWNER/NAME"):
        load_filters(nn.Linear(4, 4), "missing")
    with pytest.raises(ValueError, match=r"\['fir'\].*class MultiScaleFilterBank"):
        MultiScaleFilterBank.from_pretrained(tmp_path)
    two = nn.ModuleList([nn.GRU(4, 4, batch_first=True), nn.Linear(4, 4)])
    insert_filters(two, ["0", "1"]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"\['0', '1'\], not one filter"):
        FilterBank.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'0' has a filter already"):
        load_filters(two, tmp_path)
    with pytest.raises(ValueError, match=r"layout is saved with them.*batch_first=False"):
        load_filters(nn.ModuleList([nn.GRU(4, 4), nn.Linear(4, 4)]), tmp_path)
    insert_filters(
        nn.ModuleList([nn.GRU(4, 4, batch_first=True)]), "0", padding_mask="hx"
    ).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="argument 'hx'"):
        load_filters(nn.ModuleList([nn.Linear(4, 4)]), tmp_path)


@pytest.mark.parametrize("option", [{"padding_mask": None}, {"channels_first": True}])
def test_layouts_round_trip(option: dict[str, Any], tmp_path: Path) -> None:
    saved = insert_filters(nn.ModuleList([nn.Linear(4, 4)]), "0", **option)
    saved.save_pretrained(tmp_path)
    assert load_filters(nn.ModuleList([nn.Linear(4, 4)]), tmp_path).layouts == saved.layouts


def test_what_would_not_be_loaded_as_it_is_is_not_saved(tmp_path: Path) -> None:
    class Louder(FilterBank):
        pass

    mixed = build("adaptive", causal=True)
    mixed.mask.bfloat16()  # type: ignore[operator]
    pruned = FilterBank(5, 3)
    prune.l1_unstructured(pruned, "kernels", amount=0.3)  # type: ignore[no-untyped-call]
    for filter, message in (
        (Louder(5, 3), "Louder has no name of its own"),
        (mixed, r"torch.bfloat16, torch.float32.*to\(dtype\)"),
        (pruned, "kernels_mask.*make pruning or another"),
        (weight_norm(FilterBank(5, 3), "kernels"), "remove_parametrizations first"),
    ):
        with pytest.raises(ValueError, match=message):
            filter.save_pretrained(tmp_path)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    handle = insert_filters(model, ["0", "1"], "bank")
    handle.filters["1"].kernels = handle.filters["0"].kernels
    with pytest.raises(ValueError, match="filters '0' and '1' share parameters"):
        handle.save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "os.system"}, "unknown filter 'os.system'"),
        ({"name": "spaudio.filters.bank.FilterBank"}, "unknown filter"),
        ({"_target_": "os.system"}, "no option '_target_'"),
        ({"dtype": "builtins.eval"}, "dtype must be one of.*'builtins.eval'"),
        ({"activation": "os.system"}, "activation must be one of"),
        ({"kernel_size": 4}, r"do not fit its config\.json .*kernels.*\[5, 4\]"),
    ],
)
def test_config_builds_nothing_by_path_and_fits_the_weights(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    FilterBank(5, 3).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["filters"]["bank"].update(change)
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        FilterBank.from_pretrained(tmp_path)


def test_the_default_device_does_not_matter(tmp_path: Path) -> None:
    model, other = nn.Sequential(nn.Linear(8, 8)), nn.Sequential(nn.Linear(8, 8))
    handle = insert_filters(model, ["0"], zero_init=False)
    with torch.device("meta"):
        handle.save_pretrained(tmp_path)
        loaded = load_filters(other, tmp_path)
    for one, saved in zip(loaded.parameters(), handle.parameters(), strict=True):
        assert torch.equal(one, saved)
