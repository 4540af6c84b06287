"""Writes an editable recipe for a folder of sounds: a copy of ``recipes/folder`` and its script."""

import json
import os
import re
import shutil
from pathlib import Path

from spaudio.errors import ConfigError
from spaudio.experiment.recipes import recipes_folder
from spaudio.io.atomic import new_folder
from spaudio.io.paths import refuse_interpolation
from spaudio.report.run_command import this_python

_README = """# {name}

A recipe for the sounds in `{source}`, made by `spaudio new`.

```sh
{python} {name}/run.py        # one run; data go to ./data, runs to ./runs
{python} {name}/run.py --cfg  # all settings, with their values
{python} {name}/run.py -m filter=none,bank seed=0,1,2
```

- `config.yaml`: the settings that differ from the defaults. `model=pretrained` has defaults of its
  own, which replace some of them; a message names these. Settings on the command line are kept.
  Fill in `about`: the licence of the data goes into reports and model cards.
- `prep.py`: lists the clips, with their labels, groups and splits. To try it alone, run
  `{python} {name}/prep.py source=DIR`. The keyword arguments of `prepare` are settings of the
  recipe.
- `run.py`: nothing to edit.
"""


def write_recipe(name: str, source: Path, folder: Path) -> Path:
    """Writes ``<folder>/<name>/`` atomically.

    Args:
        name: Name of the recipe, its folder and its runs.
        source: The sounds: a folder with one sub-folder per class, or an archive of it.
        folder: Where to write.

    Returns:
        The recipe's folder.

    Raises:
        ConfigError: If the name is invalid, the folder exists, or there is no source.
    """
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        raise ConfigError(f"{name!r} is not a recipe name; use letters, digits and underscores")
    target = folder / name
    if target.exists():
        raise ConfigError(f"{target} exists; choose another name, or remove it")
    if not source.exists():
        raise ConfigError(f"{source}: no such file or folder; name the folder of your sounds")
    sounds = str(source.resolve())
    if sounds != os.fsencode(sounds).decode("utf-8", "ignore"):
        raise ConfigError(f"{sounds!r}: its name is not UTF-8, as settings are; rename the folder")
    refuse_interpolation(sounds)
    recipes = recipes_folder()
    config = (recipes / "folder" / "config.yaml").read_text(encoding="utf-8")
    quoted = json.dumps(sounds, ensure_ascii=False)
    own = f'recipe: "{name}"\nprep: prep  # prep.py beside this file\nsource: {quoted}\n'
    config = config.replace("recipe: folder\n", own)
    config = re.sub(
        r"^#.*\n", "# Settings of this recipe. See README.md beside this file.\n", config
    )
    config = re.sub(r"^  title: .*$", f'  title: "{name}"', config, flags=re.MULTILINE)
    script = (recipes.parent / "data_prep" / "folder.py").read_text(encoding="utf-8")
    script = script.replace("python data_prep/folder.py", f"python {name}/prep.py")
    script = script.replace('main("folder", prepare)', f'main("{name}", prepare)')
    with new_folder(target) as staging:
        (staging / "config.yaml").write_text(config, encoding="utf-8")
        (staging / "prep.py").write_text(script, encoding="utf-8")
        (staging / "README.md").write_text(
            _README.format(name=name, source=source, python=this_python()), encoding="utf-8"
        )
        shutil.copyfile(recipes / "folder" / "run.py", staging / "run.py")
    return target
