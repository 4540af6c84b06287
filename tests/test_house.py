"""Sub-packages import in one direction; the filters need torch alone. The version is one."""

import ast
import re
import subprocess
import sys

import pytest

from spaudio import __version__
from tests import ROOT

# Each sub-package may import those before it; `errors` and `version` are modules that all may use.
ORDER = ["errors", "version", "io", "audio", "text", "tokens", "filters", "model", "training",
         "report", "experiment", "inference", "export"]  # fmt: skip
FREE = {"bench", "cli"}  # may import any sub-package, and none imports them


def imports(source: str, package: str) -> set[str]:
    """The modules of spaudio that a file of ``package`` imports, and names taken from them."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            found.update(f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {name for name in found if name.startswith("spaudio.")}


def test_the_search_finds_every_way_to_import() -> None:
    for line, found in (
        ("import torch, spaudio.bench", "spaudio.bench"),
        ("from spaudio import bench", "spaudio.bench"),
        ("from spaudio.io.lock import locked", "spaudio.io.lock.locked"),
        ("from . import fused", "spaudio.filters.fused"),
        ("from .fused import op", "spaudio.filters.fused.op"),
        ("from .. import bench", "spaudio.bench"),
        ("from ..io.lock import locked", "spaudio.io.lock.locked"),
    ):
        assert imports(line, "spaudio.filters") == {found}, line


@pytest.mark.parametrize("name", [r for r in ORDER if (ROOT / "spaudio" / r).is_dir()])
def test_a_sub_package_imports_only_those_before_it(name: str) -> None:
    allowed = {"filters"} if name == "filters" else set(ORDER[: ORDER.index(name) + 1])
    if name == "experiment":
        allowed |= {"conf"}
    for file in (ROOT / "spaudio" / name).rglob("*.py"):
        package = ".".join(file.relative_to(ROOT).parent.parts)
        found = imports(file.read_text(encoding="utf-8"), package)
        used = {module.split(".")[1] for module in found}
        assert used <= allowed, f"{file.relative_to(ROOT)} imports {used - allowed}"


def test_every_sub_package_has_a_place_in_the_order() -> None:
    names = {p.name for p in (ROOT / "spaudio").iterdir() if (p / "__init__.py").is_file()}
    assert names <= set(ORDER) | FREE | {"conf"}


def test_a_file_name_occurs_in_one_sub_package() -> None:
    """So that it says by itself what is in the file."""
    folders: dict[str, list[str]] = {}
    for file in (ROOT / "spaudio").rglob("*.py"):
        if file.name not in ("__init__.py", "__main__.py"):
            folders.setdefault(file.name, []).append(str(file.parent.relative_to(ROOT)))
    assert not {name: found for name, found in folders.items() if len(found) > 1}


def test_recipes_hold_no_logic() -> None:
    scripts = (ROOT / "recipes").glob("*/run.py")
    [text] = {script.read_text(encoding="utf-8") for script in scripts}  # all are the same
    kinds = [type(node).__name__ for node in ast.parse(text).body]
    assert kinds == ["Expr", "ImportFrom", "If"]


def test_a_script_defines_everything_before_it_runs() -> None:
    for script in (ROOT / "data_prep").rglob("*.py"):
        body = ast.parse(script.read_text(encoding="utf-8")).body
        ran = [i for i, node in enumerate(body, 1) if ast.unparse(node).startswith("if __name__")]
        assert ran in ([], [len(body)]), script


def test_imports_with_torch_alone() -> None:
    blocked = ["torchaudio", "numpy", "soundfile", "hydra", "accelerate", "safetensors", "sklearn",
               "matplotlib", "librosa", "huggingface_hub", "rich", "torchmetrics"]  # fmt: skip
    # torch itself imports NumPy where it is installed, so torch comes first.
    code = (
        "import sys, torch\n"
        f"sys.modules.update(dict.fromkeys({blocked!r}))\n"
        "import spaudio, spaudio.filters\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_citation_and_the_newest_changes_are_of_this_version() -> None:
    for file, line in (("CITATION.cff", r"^version: (\S+)$"), ("CHANGELOG.md", r"^## (\S+)")):
        text = (ROOT / file).read_text(encoding="utf-8")
        assert re.findall(line, text, re.MULTILINE)[:1] == [__version__], file
