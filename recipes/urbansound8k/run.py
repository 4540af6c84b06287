"""Runs this recipe: `python recipes/urbansound8k/run.py key=value ...`."""

from spaudio.experiment.entry import main

if __name__ == "__main__":
    main(__file__)
