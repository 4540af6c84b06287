"""Checks that the settings of every front-end share: sizes, lengths in samples, frequencies."""

from __future__ import annotations

from collections.abc import Mapping

from spaudio.errors import ConfigError


def check_positive(values: Mapping[str, float]) -> None:
    """Requires positive values.

    Args:
        values: By name, without ``tokens.``.

    Raises:
        ConfigError: If one is zero or negative.
    """
    for name, value in values.items():
        if value <= 0:
            raise ConfigError(f"tokens.{name} must be positive; got {value}")


def check_lengths(seconds: Mapping[str, float], sample_rate: int) -> None:
    """Requires lengths of a sample or more.

    Args:
        seconds: Lengths by name, without ``tokens.``.
        sample_rate: In Hz.

    Raises:
        ConfigError: If one rounds to no sample.
    """
    for name, length in seconds.items():
        if round(length * sample_rate) < 1:
            raise ConfigError(
                f"tokens.{name}={length} s is less than a sample at {sample_rate} Hz; give at "
                f"least {1 / sample_rate:.6f}"
            )


def check_band(f_min: float, f_max: float | None, sample_rate: int) -> None:
    """Requires a band between 0 and half of the sample rate.

    Args:
        f_min: Lower edge in Hz.
        f_max: Upper edge in Hz; None is half of the sample rate.
        sample_rate: In Hz.

    Raises:
        ConfigError: If the edges are out of range or order.
    """
    top = sample_rate / 2 if f_max is None else f_max
    if not 0 <= f_min < top <= sample_rate / 2:
        raise ConfigError(
            f"tokens.f_min and tokens.f_max must lie in 0 <= f_min < f_max <= sample_rate/2 = "
            f"{sample_rate / 2} Hz; got {f_min} and {f_max}"
        )
