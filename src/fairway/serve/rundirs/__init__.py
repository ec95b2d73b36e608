"""Run directories below a folder, opened in a browser: reports, comparisons, curves."""
