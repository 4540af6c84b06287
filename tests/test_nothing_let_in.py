"""What is loaded can run no code: the whole tree is searched for calls that would let it."""

import ast
import re
from collections.abc import Iterator

from tests import ROOT

#: Modules that run code from what they read, or that read it unsafely.
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
#: Last part of the dotted name of what is called; see `forbidden` for those that depend.
CALLS = {
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "os.system", "os.popen",
    "utils.instantiate", "utils.call", "utils.get_class", "utils.get_method", "utils.get_object",
    "pd.read_pickle", "pandas.read_pickle", "torch.jit.load", "torch.package",
    "subprocess.getoutput", "subprocess.getstatusoutput",
}  # fmt: skip
LOADS = {"torch.load", "torch.serialization.load"}
NAMES = {"instantiate", "get_class", "get_method", "read_pickle", "unsafe_load", "extractall"}


def is_call(name: str) -> bool:
    """Whether a dotted name is one of CALLS or ends with one of NAMES."""
    known = name.rpartition(".")[2] in NAMES
    return known or any(name == call or name.endswith(f".{call}") for call in CALLS)


def renamed(tree: ast.AST) -> dict[str, str]:
    """Names that a file gives to modules, and those of the modules."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    return {alias.asname: alias.name for node in imports for alias in node.names if alias.asname}


def forbidden(source: str) -> Iterator[str]:
    """What stands in a file that could run code from data, or write outside its folder."""
    tree = ast.parse(source)
    modules = renamed(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module.split(".")[0] in MODULES:
                yield module
            names = [f"{module}.{a.name}" for a in node.names]
            # A later call of the bare name could not be told from others.
            yield from (n for n in names if n == "torch.load" or is_call(n))
        elif isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            name = modules.get(first, first) + dot + rest
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            last = name.rpartition(".")[2]
            if (
                name.removeprefix("builtins.") in BUILTINS
                or is_call(name)
                or (name in LOADS and given.get("weights_only") != "True")
                or (last == "load" and given.get("allow_pickle", "False") != "False")
                or given.get("shell", "False") != "False"
                or given.get("trust_remote_code", "False") != "False"
            ):
                yield ast.unparse(node)


FILES = sorted(
    path for room in ("spaudio", "data_prep", "recipes") for path in (ROOT / room).rglob("*.py")
)


def test_nothing_that_is_read_can_run_code() -> None:
    assert len(FILES) > 50
    found = {
        str(path.relative_to(ROOT)): calls
        for path in FILES
        if (calls := list(forbidden(path.read_text(encoding="utf-8"))))
    }
    assert not found


def test_weights_are_written_as_safetensors_alone() -> None:
    """``torch.save`` is called in one place, for the trainer's state beside the weights."""
    callers = {
        str(path.relative_to(ROOT))
        for path in FILES
        if "torch.save(" in path.read_text(encoding="utf-8")
    }
    assert callers == {"spaudio/training/checkpoint.py"}
    source = (ROOT / "spaudio/training/checkpoint.py").read_text(encoding="utf-8")
    saved = [
        ast.unparse(node.args[0])
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.save"
    ]
    assert saved == ["state"]


def test_no_configuration_names_a_class() -> None:
    for folder in ("spaudio/conf", "recipes"):
        for path in (ROOT / folder).rglob("*.yaml"):
            text = path.read_text(encoding="utf-8")
            assert "_target_" not in text, path
            assert "!!python" not in text, path


#: What fetches from any address, and what fetches from the Hugging Face Hub.
FETCHING = re.compile(
    r"(requests|httpx|aiohttp|ftplib|urllib3|urllib\.request|http\.client)(\.\w+)*"
)
HUB = {"snapshot_download", "hf_hub_download", "PyTorchModelHubMixin", "HfApi", "HfFileSystem"}


def fetched(source: str) -> set[str]:
    """Where a file fetches from: "any" address, the "hub", both or neither."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".from_pretrained"):
            found.add("hub")
        if any(FETCHING.fullmatch(name) for name in names):
            found.add("any")
        if any(name.rpartition(".")[2] in HUB for name in names):
            found.add("hub")
    return found


def test_only_one_file_fetches() -> None:
    """Data go through the one function that checks what it has got; models come from the Hub."""
    places = {path: fetched(path.read_text(encoding="utf-8")) for path in FILES}
    found = {
        place: {str(path.relative_to(ROOT)) for path in FILES if place in places[path]}
        for place in ("any", "hub")
    }
    assert found["any"] == {"spaudio/io/download.py"}
    assert found["hub"] == {
        "spaudio/inference/saved.py",
        "spaudio/filters/base.py",
        "spaudio/filters/hub.py",
        "spaudio/filters/insert.py",
        "spaudio/model/pretrained/load_encoder.py",
    }
    for line in ("import requests", "from urllib import request", "from http.client import X"):
        assert fetched(line) == {"any"}
    for line in (
        "from huggingface_hub import snapshot_download", "AutoModel.from_pretrained(name)",
        "super().from_pretrained(name)", "from huggingface_hub import PyTorchModelHubMixin",
    ):  # fmt: skip
        assert fetched(line) == {"hub"}
    assert not fetched("from urllib.parse import quote\nfrom huggingface_hub import ModelCardData")


def test_the_search_finds_what_runs_code_and_nothing_else() -> None:
    for line in (
        "import pickle", "from joblib import load", "torch.load(path)", "eval(text)", "exec(text)",
        "torch.load(path, weights_only=False)", "yaml.load(text, yaml.Loader)", "os.system(text)",
        "hydra.utils.instantiate(config)", "from hydra.utils import instantiate",
        "np.load(path, allow_pickle=True)", "subprocess.run(text, shell=True)",
        "archive.extractall(folder)", "from torch import load", "from os import system, path",
        "from yaml import load as parse", "subprocess.getoutput(text)", "from torch import package",
        "from subprocess import getoutput", "import torch as t; t.load(path)",
        "import yaml as y; y.load(text)", "torch.serialization.load(path)", "builtins.eval(text)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ):  # fmt: skip
        assert list(forbidden(line)), line
    for line in (
        "model.eval()", "torch.load(path, weights_only=True)", "np.load(path)", "re.compile(x)",
        "from spaudio import load", "from os import path", "subprocess.run(words)",
        "AutoModel.from_pretrained(name, trust_remote_code=False)",
    ):  # fmt: skip
        assert not list(forbidden(line)), line
