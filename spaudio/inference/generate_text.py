"""Generates text with the model of a finished text run."""

from pathlib import Path

import torch

from spaudio.errors import ConfigError, DataError
from spaudio.experiment.load import load_language_model
from spaudio.experiment.run_folder import read_run_settings
from spaudio.experiment.settings import TextSettings
from spaudio.model.generate import generate
from spaudio.text.corpus import ALPHABET, decode, encode


def generate_text(
    run: Path,
    prompt: str,
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
) -> str:
    """Continues a prompt with a run's model, which reads no more than its ``context`` at a time.

    Args:
        run: The folder of a text run.
        prompt: Lower-case letters and spaces.
        length: Characters to generate.
        temperature: See :func:`spaudio.model.generate.generate`.
        top_k: As above.
        seed: Seed for sampling.

    Returns:
        The characters after the prompt.

    Raises:
        CheckpointError: If the folder is not of a text run.
        ConfigError: If a number is out of range, or the prompt is empty.
        DataError: If the prompt holds a character that is not in the alphabet.
    """
    if abs(seed) >= 2**63:
        raise ConfigError(f"--seed {seed}; expected a whole number below 2**63")
    if wrong := sorted(set(prompt) - set(ALPHABET)):
        raise DataError(
            f"the prompt holds {', '.join(map(repr, wrong))}; the model knows only the letters a "
            "to z and the space: write lower-case letters, digits as words, and a space for "
            "everything else"
        )
    model, settings = load_language_model(run), read_run_settings(run)
    assert isinstance(settings, TextSettings)  # load_language_model refuses others
    symbols = torch.from_numpy(encode(prompt.encode()).astype("int64")).unsqueeze(0)
    drawn = generate(
        model,
        symbols,
        length,
        temperature=temperature,
        top_k=top_k,
        context=settings.context,  # later positions were never trained
        generator=torch.Generator().manual_seed(seed),
    )
    return decode(drawn[0].tolist())
