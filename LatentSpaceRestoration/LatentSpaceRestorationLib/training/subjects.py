"""Moved to :mod:`LatentSpaceRestorationLib.datasets`."""

from ..datasets import SPLITS, Subject, of_split, read_subjects

__all__ = ["SPLITS", "Subject", "of_split", "read_subjects"]
