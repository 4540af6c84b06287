"""What is loaded can run no code: the whole tree is searched for calls that would let it."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Modules that run code from what they read, or that read it unsafely.
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
#: Last part of the dotted name of what is called; see `forbidden` for those that depend.
CALLS = {
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "os.system", "os.popen",
    "utils.instantiate", "utils.call", "utils.get_class", "utils.get_method", "utils.get_object",
    "pd.read_pickle", "pandas.read_pickle", "torch.jit.load", "torch.package",
}  # fmt: skip
NAMES = {"instantiate", "get_class", "get_method", "read_pickle", "unsafe_load", "extractall"}


def forbidden(source: str) -> Iterator[str]:
    """What stands in a file that could run code from data, or write outside its folder."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module.split(".")[0] in MODULES:
                yield module
            yield from (f"{module}.{a.name}" for a in node.names if a.name in NAMES)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            last = name.rpartition(".")[2]
            if (
                name in BUILTINS
                or last in NAMES
                or any(name == call or name.endswith(f".{call}") for call in CALLS)
                or (name == "torch.load" and given.get("weights_only") != "True")
                or (last == "load" and given.get("allow_pickle", "False") != "False")
                or given.get("shell", "False") != "False"
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


def test_only_one_file_fetches() -> None:
    """All downloads go through the one function that checks what it has got."""
    fetching = {
        str(path.relative_to(ROOT))
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([a.name for a in node.names] + [getattr(node, "module", None) or ""])
        if name.split(".")[0] in ("requests", "httpx", "aiohttp", "ftplib")
        or name in ("urllib.request", "http.client")
    }
    assert fetching == {"spaudio/io/download.py"}


def test_the_search_finds_what_runs_code_and_nothing_else() -> None:
    for line in (
        "import pickle", "from joblib import load", "torch.load(path)", "eval(text)", "exec(text)",
        "torch.load(path, weights_only=False)", "yaml.load(text, yaml.Loader)", "os.system(text)",
        "hydra.utils.instantiate(config)", "from hydra.utils import instantiate",
        "np.load(path, allow_pickle=True)", "subprocess.run(text, shell=True)",
        "archive.extractall(folder)",
    ):  # fmt: skip
        assert list(forbidden(line)), line
    for line in (
        "model.eval()", "torch.load(path, weights_only=True)", "np.load(path)", "re.compile(x)",
    ):  # fmt: skip
        assert not list(forbidden(line)), line
