"""The filterbank as one operator that does not store the time-frequency representation."""
