"""The page report.html: a run on one page, for people."""
