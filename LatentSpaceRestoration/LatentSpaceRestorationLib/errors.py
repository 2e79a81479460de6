"""Errors that a user can cause. ``str(error)`` is one line: what is wrong, and what to do."""

from __future__ import annotations

from collections.abc import Iterable

#: Where a header leaves orientation out.
SIDE_UNKNOWN = (
    "the file does not say how the head lies in it: left and right, and all other directions, are "
    "those that are usual in its format, and may be wrong"
)
#: What to think of the map of a scan that is of another kind than those that a model knows.
DISTRUST = "the map is not to be trusted"


class LSRError(Exception):
    """Base of every error that the user, not the programmer, can mend."""


class InputError(LSRError):
    """A scan or mask that cannot be used."""


class BundleError(LSRError):
    """A model that is unknown, damaged, or of another format version."""


class OutputError(LSRError):
    """A folder or file that cannot be written."""


class Cancelled(LSRError):
    """The caller's ``is_cancelled`` answered True; nothing was written."""


class ConfigError(LSRError):
    """A setting of a training that cannot be used."""


def is_distrusted(lines: Iterable[str]) -> bool:
    """Whether a line says that a map, and not only a part of it, is not to be trusted."""
    return any(line.endswith(f"; {DISTRUST}") for line in lines)
