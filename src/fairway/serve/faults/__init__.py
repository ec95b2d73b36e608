"""A server that misbehaves on purpose, to test clients: ``fairway serve --fault NAME[:RATE]``."""

from fairway.serve.faults.wrapping import Fault, Faults, around, named, parse

__all__ = ["Fault", "Faults", "around", "named", "parse"]
