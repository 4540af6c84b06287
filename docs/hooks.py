"""Hooks of the site: its pages are files of the repository, under their paths in it.

So there is one source of each page, and a relative link works on the site and on a forge alike.
"""

import json
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# Pages, and the files to which they link.
FILES = (
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "LICENSE",
    "docs/*.md", "docs/*.csv", "docs/figures/*", "docs/notebooks/*.ipynb", "docs/api/*.md",
    "recipes/*/*.md", "recipes/*/*.png", "recipes/*/*.csv", "spaudio/bench/*.md",
)  # fmt: skip
# Their tables need the width of the table of contents.
WIDE = ("recipes/folder/README.md", "recipes/study/ADAPTERS.md", "recipes/study/RESULTS.md",
        "recipes/text8/RESULTS.md")  # fmt: skip


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
        if path.suffix == ".ipynb":
            page = f"{name.removesuffix('.ipynb')}.md"
            files.append(File.generated(config, page, content=read_notebook(path)))
    return files


def read_notebook(path: Path) -> str:
    """Returns a notebook as Markdown, with a link to the file."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    parts.insert(1, f"[Download the notebook]({path.name})")
    return "\n\n".join(parts)


def on_page_markdown(markdown: str, page: Page, **given: object) -> str:
    """Links to the pages of notebooks; hides the table of contents beside wide tables."""
    if page.file.src_uri in WIDE:
        page.meta["hide"] = ["toc"]
    return re.sub(r"(notebooks/\w+)\.ipynb\)", r"\1.md)", markdown)


def on_page_content(html: str, **given: object) -> str:
    """Removes the roles of Sphinx from docstrings, as in :class:`Name`; begins no line with ±."""
    html = html.replace(" ±", "\N{NO-BREAK SPACE}±")
    return re.sub(r":(?:class|func|meth|data|mod):(<code>)~?", r"\1", html)
