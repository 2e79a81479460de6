"""Tables whose rows a reader can put in another order, by mouse or keyboard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .page import text

STYLE = """
.wide { overflow-x: auto; }
th button { all: unset; cursor: pointer; padding: 2px 4px; margin: -2px -4px; border-radius: 3px; }
th button:hover { color: var(--ink); } th button:focus-visible { outline: 2px solid var(--link); }
th button::after { content: "\\2195"; opacity: .35; margin-left: .3em; }
th[aria-sort] button { color: var(--ink); } th[aria-sort] button::after { opacity: 1; }
th[aria-sort=ascending] button::after { content: "\\2191"; }
th[aria-sort=descending] button::after { content: "\\2193"; }
@media print { th button::after { content: none; } }
"""

#: Sorts on a click on a heading; cells without a value stay last. Hides rows that lack the words
#: that were typed.
SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const first = head.dataset.first || "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    heads.forEach(each => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1, numeric = "number" in head.dataset;
    const rows = [...body.rows].map(row => [row.cells[column].dataset.value ?? "", row]);
    rows.sort(([a], [b]) => a === "" || b === "" ? (a === "") - (b === "") :
      sign * (numeric ? a - b : a.localeCompare(b, undefined, {numeric: true})));
    body.append(...rows.map(([, row]) => row));
  }));
}
for (const input of document.querySelectorAll("input[data-filters]")) {
  const rows = [...document.getElementById(input.dataset.filters).tBodies[0].rows];
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
}
"""


@dataclass(frozen=True)
class Column:
    """A heading.

    Attributes:
        title: of the column.
        words: whether its cells are words, or pictures, and no numbers.
        highest_first: which order the first click gives.
        sorts: whether a click sorts by it.
    """

    title: str
    words: bool = False
    highest_first: bool = False
    sorts: bool = True


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        html: what it shows.
        value: what it is sorted by; None is last in any order.
    """

    html: str
    value: float | str | None = None


def table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[Cell]],
    sorted_by: int | None = None,
    identity: str = "",
) -> str:
    """A table.

    Args:
        columns, rows: in the order at first.
        sorted_by: number of the column that they are in order by, as after a first click on it.
        identity: what a filter calls it.
    """
    heads = []
    for number, column in enumerate(columns):
        order = "descending" if column.highest_first else "ascending"
        marks = f' data-first="{order}"' + ("" if column.words else " data-number")
        marks += ' class="words"' if column.words else ""
        marks += f' aria-sort="{order}"' if number == sorted_by else ""
        title = text(column.title)
        label = f'<button type="button">{title}</button>' if column.sorts else title
        heads.append(f'<th scope="col"{marks}>{label}</th>')
    lines = []
    for row in rows:
        cells = []
        for column, cell in zip(columns, row, strict=True):
            marks = ' class="words"' if column.words else ""
            marks += "" if cell.value is None else f' data-value="{text(cell.value)}"'
            cells.append(f"<td{marks}>{cell.html}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    named = f' id="{text(identity)}"' if identity else ""
    head = f"<thead><tr>{''.join(heads)}</tr></thead>"
    body = "<tbody>" + "\n".join(lines) + "</tbody>"
    return f'<div class="wide"><table class="sortable"{named}>{head}{body}</table></div>'
