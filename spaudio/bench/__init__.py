"""What the filters cost on this machine: ``python -m spaudio.bench``."""
