"""Runs this recipe with the settings in config.yaml; README.md describes it."""

from spaudio.experiment.entry import main

if __name__ == "__main__":
    main(__file__)
