"""The filterbank as one operator that never holds the time-frequency representation."""
