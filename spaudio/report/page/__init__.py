"""`report.html`: one page that opens from the disk, on which the errors of a run can be heard."""
