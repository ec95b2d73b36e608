"""Renderings of reports and scores. None of them loads a model; text in them is untrusted."""
