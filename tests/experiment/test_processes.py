"""``torchrun`` with two processes on a CPU: one folder, and what one process comes to."""

import json
import signal
import socket
from pathlib import Path

import pytest
import torch
from torch.distributed.run import main

from spaudio.errors import ConfigError
from spaudio.experiment.processes import is_first_process, make_accelerator
from spaudio.training.log import read_log
from spaudio.training.trainer_config import TrainerConfig
from tests import RECIPES
from tests.conftest import RunRecipe
from tests.fixtures.tiny_recipes import tiny_folder
from tests.fixtures.toy import PROCESSES

SAME = ["preset=debug", "trainer.epochs=2", "augment.mixup=0", "augment.cutmix=0",
        "augment.mixstyle=0", "model.drop_path=0", "tokens.stem=none", "trainer.precision=no",
        "page=false"]  # fmt: skip


def torchrun(logs: Path, recipe: str, *overrides: str) -> str:
    """Runs torchrun with two processes of a recipe; returns what they write to stderr.

    They are forked from a process that has imported torch.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    script = str(RECIPES / recipe / "run.py")
    changed = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    handlers = {number: signal.getsignal(number) for number in changed}
    try:
        main(["--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", port,
              "--run-path", "--start-method", PROCESSES.get_start_method(),
              "--redirects", "3", "--log-dir", str(logs), script, *overrides])  # fmt: skip
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return "".join(path.read_text() for path in logs.rglob("stderr.log"))


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.filterwarnings("ignore:Unable to enable fault handler")  # pytest has its own
def test_two_processes_write_one_run_which_is_that_of_one(
    tmp_path: Path, run_recipe: RunRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = tiny_folder(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    said = torchrun(tmp_path / "logs", "folder", *SAME, *tiny)  # prepares the data too
    assert said.count("report: ") == 1, said
    (run,) = [path.parent for path in (tmp_path / "runs" / "folder").glob("*/config.yaml")]
    alone = run_recipe("folder", *SAME, "run_id=alone", *tiny)
    assert alone.code == 0, alone.err
    reports = [
        json.loads((folder / "report.json").read_text()) for folder in (run, run.parent / "alone")
    ]
    assert [report["processes"] for report in reports] == [2, 1]
    curves = [
        torch.tensor([[r["train_loss"], r["valid_loss"], r["valid_accuracy"]] for r in read_log(f)])
        for f in (run, run.parent / "alone")
    ]
    torch.testing.assert_close(curves[0], curves[1], rtol=1e-4, atol=1e-5)
    lines = [
        (folder / "predictions.csv").read_text().splitlines()
        for folder in (run, run.parent / "alone")
    ]
    assert [line.split(",")[0] for line in lines[0]] == [line.split(",")[0] for line in lines[1]]


@pytest.mark.parametrize(("avx512", "amx"), [(True, False), (False, True), (False, False)])
def test_the_precision_is_that_of_the_settings_or_of_the_hardware(
    avx512: bool, amx: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: amx)
    native = "bf16" if avx512 or amx else "no"
    for given, chosen in (("auto", native), ("bf16", "bf16"), ("no", "no")):
        trainer = TrainerConfig(device="cpu", precision=given)
        assert make_accelerator(trainer).mixed_precision == chosen


@pytest.mark.parametrize(
    ("arguments", "named"), [(["-m", "seed=0,1"], "sweep"), (["folds=all"], "folds=all")]
)
def test_what_starts_runs_of_its_own_is_not_for_torchrun(
    arguments: list[str], named: str, monkeypatch: pytest.MonkeyPatch,
    run_recipe: RunRecipe, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    done = run_recipe("esc50", *arguments)
    assert done.code == 1
    assert named in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "missing"),
    [((), "RANK, LOCAL_RANK, MASTER_ADDR"), (("MASTER_ADDR", "MASTER_PORT"), "RANK, LOCAL_RANK")],
)
def test_processes_that_cannot_find_each_other_are_refused(
    given: tuple[str, ...], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name in given:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=f"WORLD_SIZE=2 is set without {missing}.* with torchrun"):
        make_accelerator(TrainerConfig())


def test_a_rank_of_a_scheduler_is_not_that_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert is_first_process()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not is_first_process()
