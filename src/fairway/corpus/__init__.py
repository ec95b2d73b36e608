"""Corpora: documents from files, folders, data sets, standard input and Python."""

from fairway.corpus.document import Corpus, Document, SkippedRow, cut
from fairway.corpus.named import NAMED
from fairway.corpus.reading import read

__all__ = ["NAMED", "Corpus", "Document", "SkippedRow", "cut", "read"]
