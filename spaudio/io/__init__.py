"""Files on disk, for every room: atomic writes, locks, downloads, archives, progress bars."""
