"""What is loaded can run no code: ruff refuses most calls that would let it, tests the rest."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator

from tests import ROOT

SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for room in ("spaudio", "data_prep", "recipes")
    for path in sorted((ROOT / room).rglob("*.py"))
}
RULES = "S102,S202,S301,S307,S506,S602,S604,S605,TID251"
#: The only lines that may do what ruff refuses (`banned-api` in pyproject.toml).
ALLOWED = {
    "spaudio/io/download.py": [
        "from http.client import HTTPException",
        "from urllib.request import Request, urlopen",
    ],
    "spaudio/inference/saved.py": ["from huggingface_hub import snapshot_download"],
    "spaudio/filters/hub.py": ["from huggingface_hub import PyTorchModelHubMixin"],
    "spaudio/training/checkpoint.py": ["state: dict[str, Any] = torch.load("],
}


def unseen(source: str) -> Iterator[int]:
    """The lines of calls that could run code, or write anywhere, and that no rule of ruff finds."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {k.arg for k in node.keywords if ast.unparse(k.value) != "False"}
            if (
                name.removeprefix("builtins.") in ("compile", "__import__")
                or name.rpartition(".")[2] in ("extractall", "instantiate", "read_pickle")
                or given & {"allow_pickle", "trust_remote_code", "shell"}
            ):
                yield node.lineno


def ruff(*given: str, text: str | None = None) -> dict[str, list[int]]:
    """Lines that ruff refuses for what they could let in, by file, whatever is marked `noqa`."""
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--ignore-noqa", f"--select={RULES}",
         "--output-format=concise", *given],
        cwd=ROOT, input=text, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode < 2, done.stderr
    found: dict[str, list[int]] = {}
    for path, line in re.findall(r"^(.+?\.py):(\d+):\d+: ", done.stdout, re.MULTILINE):
        found.setdefault(path, []).append(int(line) - 1)
    return found


def refused(lines: list[str]) -> set[int]:
    """Which lines of a file of this package ruff refuses."""
    file = "spaudio/any.py"
    return {*ruff(f"--stdin-filename={file}", "-", text="\n".join(lines)).get(file, [])}


def test_nothing_that_is_read_can_run_code() -> None:
    assert len(SOURCES) > 50
    assert not {path: lines for path, text in SOURCES.items() if (lines := [*unseen(text)])}
    found = {
        path: [SOURCES[path].splitlines()[line].partition("  #")[0].strip() for line in lines]
        for path, lines in ruff("spaudio", "data_prep", "recipes").items()
    }
    assert found == ALLOWED


def test_weights_are_written_as_safetensors_alone() -> None:
    """``torch.save`` is called in one place, for the trainer's state beside the weights."""
    callers = {path for path, text in SOURCES.items() if "torch.save(" in text}
    assert callers == {"spaudio/training/checkpoint.py"}
    calls = {
        ast.unparse(node.func): node
        for node in ast.walk(ast.parse(SOURCES["spaudio/training/checkpoint.py"]))
        if isinstance(node, ast.Call)
    }
    assert ast.unparse(calls["torch.save"].args[0]) == "state"
    assert "weights_only=True" in ast.unparse(calls["torch.load"])


def test_no_configuration_names_a_class() -> None:
    for folder in ("spaudio/conf", "recipes"):
        for path in (ROOT / folder).rglob("*.yaml"):
            text = path.read_text(encoding="utf-8")
            assert "_target_" not in text, path
            assert "!!python" not in text, path


def test_only_one_file_fetches() -> None:
    """Data go through the one function that checks what it has got; models come from the Hub."""
    callers = {path for path, text in SOURCES.items() if ".from_pretrained(" in text}
    assert callers == {
        "spaudio/filters/base.py",
        "spaudio/filters/hub.py",
        "spaudio/filters/insertion/insert.py",
        "spaudio/model/pretrained/load_encoder.py",
    }
    other = [
        "import requests", "from urllib import request", "from http.client import X",
        "from huggingface_hub import snapshot_download",
        "from huggingface_hub import PyTorchModelHubMixin",
    ]  # fmt: skip
    assert refused(other) == set(range(len(other)))
    assert not refused(["from urllib.parse import quote", "from huggingface_hub import CardData"])


def test_the_search_finds_what_runs_code_and_nothing_else() -> None:
    bad = [
        "import pickle", "from joblib import load", "torch.load(path)", "eval(text)", "exec(text)",
        "torch.load(path, weights_only=False)", "yaml.load(text, yaml.Loader)", "os.system(text)",
        "hydra.utils.instantiate(config)", "from hydra.utils import instantiate",
        "np.load(path, allow_pickle=True)", "subprocess.run(text, shell=True)",
        "archive.extractall(folder)", "from torch import load", "from os import system, path",
        "from yaml import load as parse", "subprocess.getoutput(text)", "from torch import package",
        "from subprocess import getoutput", "import torch as t; t.load(path)", "compile(text)",
        "import yaml as y; y.load(text)", "torch.serialization.load(path)", "builtins.eval(text)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)", "__import__(name)",
    ]  # fmt: skip
    good = [
        "model.eval()", "np.load(path)", "re.compile(x)", "from spaudio import load",
        "from os import path", "subprocess.run(words)",
        "AutoModel.from_pretrained(name, trust_remote_code=False)",
    ]  # fmt: skip
    known = ["import builtins, hydra, os, re, subprocess, torch, yaml, numpy as np"]
    for lines, expected in ((bad, set(range(1, len(bad) + 1))), (good, set[int]())):
        text = [*known, *lines]
        assert refused(text) | {line - 1 for line in unseen("\n".join(text))} == expected
