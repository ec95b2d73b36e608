"""Scorers by kind of model: independent siblings that fill the one seam of `fairway.scorer`."""
