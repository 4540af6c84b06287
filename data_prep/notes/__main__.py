"""Runs ``python -m data_prep.notes``; see the package."""

from data_prep.notes import prepare
from spaudio.audio.command import main

main("notes", prepare)
