"""Files on disk, for all rooms: atomic writes, journals, locks, downloads, archives, progress."""
