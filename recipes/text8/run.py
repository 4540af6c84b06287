"""Runs this recipe: `python recipes/text8/run.py key=value ...`; settings are in config.yaml."""

from spaudio.experiment.entry import main

if __name__ == "__main__":
    main(__file__)
