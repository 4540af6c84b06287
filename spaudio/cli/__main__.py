"""``python -m spaudio.cli``, for where the command ``spaudio`` is not installed."""

from spaudio.cli import main

if __name__ == "__main__":
    main()
