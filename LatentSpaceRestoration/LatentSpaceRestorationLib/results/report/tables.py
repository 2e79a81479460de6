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
@media print { th button::after { content: none; } tbody tr[hidden] { display: table-row; } }
"""

#: How a column is filtered: by the least number, by one of its values, or by having any.
LEAST, CHOICE, ANY = "least", "choice", "any"

#: Sorts on a click on a heading; cells without a value stay last. Hides rows that lack what the
#: filters ask for.
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
for (const form of document.querySelectorAll("[data-filters]")) {
  const rows = [...document.getElementById(form.dataset.filters).tBodies[0].rows];
  const texts = rows.map(row => row.textContent.toLowerCase());
  const inputs = [...form.querySelectorAll("input, select")];
  const fits = (row, at, input) => {
    const value = row.cells[input.dataset.column]?.dataset.value;
    if (input.type === "checkbox") return !input.checked || value !== undefined;
    if (!input.value) return true;
    if (input.type === "search") return texts[at].includes(input.value.toLowerCase());
    if (input.type === "number") return value !== undefined && Number(value) >= Number(input.value);
    return value === input.value;
  };
  const filter = () => {
    let shown = 0;
    rows.forEach((row, at) => {
      row.hidden = !inputs.every(input => fits(row, at, input));
      shown += row.hidden ? 0 : 1;
    });
    form.querySelector("output").textContent = `${shown} of ${rows.length}`;
  };
  form.addEventListener("input", filter);
  // Browsers fill fields in again when one comes back.
  addEventListener("pageshow", filter);
  addEventListener("hashchange", () => {
    const row = document.getElementById(location.hash.slice(1));
    if (rows.includes(row)) row.hidden = false;
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
        filters: how it is filtered: ``LEAST``, ``CHOICE``, ``ANY``; empty if it is not.
    """

    title: str
    words: bool = False
    highest_first: bool = False
    sorts: bool = True
    filters: str = ""


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
    rows_named: Sequence[str] = (),
) -> str:
    """A table.

    Args:
        columns, rows: in the order at first.
        sorted_by: number of the column that they are in order by, as after a first click on it.
        identity: what filters call it.
        rows_named: what links call its rows; empty if there are none.
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
    for at, row in enumerate(rows):
        cells = []
        for column, cell in zip(columns, row, strict=True):
            marks = ' class="words"' if column.words else ""
            marks += "" if cell.value is None else f' data-value="{text(cell.value)}"'
            cells.append(f"<td{marks}>{cell.html}</td>")
        named = f' id="{text(rows_named[at])}"' if rows_named else ""
        lines.append(f"<tr{named}>{''.join(cells)}</tr>")
    named = f' id="{text(identity)}"' if identity else ""
    head = f"<thead><tr>{''.join(heads)}</tr></thead>"
    body = "<tbody>" + "\n".join(lines) + "</tbody>"
    return f'<div class="wide"><table class="sortable"{named}>{head}{body}</table></div>'


def filters(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], identity: str) -> str:
    """What a table is filtered by: words in it, and what its columns say.

    Args:
        columns, rows: of the table.
        identity: of the table.
    """
    fields = ['<label>With the words <input type="search"></label>']
    for at, column in enumerate(columns):
        title, place = text(column.title), f'data-column="{at}"'
        if column.filters == LEAST:
            field = f'{title} at least <input type="number" step="any" {place}>'
        elif column.filters == CHOICE:
            values = sorted({str(row[at].value) for row in rows if row[at].value})
            options = "".join(f'<option value="{text(v)}">{text(v)}</option>' for v in values)
            field = f'{title} <select {place}><option value="">all</option>{options}</select>'
        elif column.filters == ANY:
            field = f'<input type="checkbox" {place}> with {title.lower()}'
        else:
            continue
        fields.append(f"<label>{field}</label>")
    count = f"<output>{len(rows)} of {len(rows)}</output>"
    shown = " ".join([*fields, count])
    return f'<div class="filters screen" data-filters="{text(identity)}">{shown}</div>'
