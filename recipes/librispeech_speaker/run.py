"""Runs this recipe; its settings are in config.yaml beside it, what it is in README.md."""

from spaudio.experiment.entry import main

if __name__ == "__main__":
    main(__file__)
