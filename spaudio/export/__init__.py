"""Export: from a finished run to one file that needs nothing of ours to be run."""
