"""File utilities: atomic writes, journals, locks, downloads, archives, progress."""
