"""Runs this recipe: `python recipes/ravdess/run.py key=value ...`."""

from spaudio.recipe.main import main

if __name__ == "__main__":
    main(__file__)
