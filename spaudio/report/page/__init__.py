"""`report.html`: a single page that opens from disk and plays the errors of a run."""
