"""What the page of messages says that is said, is what the programs say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

SOURCES = [
    file
    for folder in ("LatentSpaceRestorationLib", "LatentSpaceRestorationSlicer")
    for file in (ROOT / "LatentSpaceRestoration" / folder).rglob("*.py")
] + [ROOT / "LatentSpaceRestoration" / "LatentSpaceRestoration.py"]
#: Of a message, so much must be fixed: else anything would fit.
FEWEST_LETTERS = 10


def quoted() -> list[str]:
    """Messages in the tables of the page."""
    text = (ROOT / "docs" / "messages.md").read_text(encoding="utf-8")
    rows = [row for row in text.splitlines() if row.startswith("|")]
    spans = [span for row in rows for span in re.findall(r"`([^`]+)`", row)]
    return [span for span in spans if " " in span]


def patterns(file: Path) -> Iterator[str]:
    """A regular expression for each text in a source file, with anything for what is filled in."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = [v.value if isinstance(v, ast.Constant) else None for v in node.values]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            parts = [None if n % 2 else t for n, t in enumerate(re.split(r"({\w+})", node.value))]
        else:
            continue
        if sum(len(part) for part in parts if part) >= FEWEST_LETTERS:
            yield "".join(".*" if part is None else re.escape(part) for part in parts)


@pytest.fixture(scope="module")
def messages() -> list[re.Pattern[str]]:
    found = {pattern for file in SOURCES for pattern in patterns(file)}
    # The table leaves out the name of a file or model that a line begins with.
    name = ".*" + re.escape(": ")
    return [re.compile(f"(?:{pattern}|{pattern.removeprefix(name)})") for pattern in found]


def test_the_tables_quote_many_messages() -> None:
    assert len(quoted()) >= 35


@pytest.mark.parametrize("line", quoted())
def test_a_message_of_the_tables_is_one_of_the_sources(
    messages: list[re.Pattern[str]], line: str
) -> None:
    assert any(message.fullmatch(line) for message in messages)
