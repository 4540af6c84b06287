"""Export of a finished run to one file that runs without this package."""
