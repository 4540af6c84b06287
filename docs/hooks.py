"""Hooks of the site: its pages are files of the repository, under their paths in it.

So there is one source of each page, and a relative link works on the site and on a forge alike.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
# Pages, and the files to which they link.
FILES = (
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "LICENSE",
    "docs/*.md", "docs/*.csv", "docs/figures/*", "docs/notebooks/*.ipynb", "docs/api/*.md",
    "recipes/*/*.md", "recipes/*/*.png", "recipes/*/*.csv", "spaudio/bench/*.md",
)  # fmt: skip


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lists the recipes in the navigation, `folder` first; pages may include files by snippets."""
    config.mdx_configs["pymdownx.snippets"]["base_path"] = [str(ROOT)]
    names = sorted(path.parent.name for path in ROOT.glob("recipes/*/README.md"))
    names.sort(key=lambda name: name != "folder")
    section = next(entry for entry in config.nav if "Recipes" in entry)
    section["Recipes"] = [{name: f"recipes/{name}/README.md"} for name in names]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files of the repository."""
    for path in sorted(path for pattern in FILES for path in ROOT.glob(pattern)):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_content(html: str, **given: object) -> str:
    """Removes the roles of Sphinx from docstrings, as in :class:`Name`."""
    return re.sub(r":(?:class|func|meth|data|mod):(<code>)~?", r"\1", html)
