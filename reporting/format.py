"""A table as data, and the same table as CSV, Markdown and LaTeX.

Cells hold plain text; each writer escapes it for its own language, so a label with `|`, `_` or `&` stays itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxr.files import write_text
from cxr.tables import write_csv

UNDEFINED = "–"


@dataclass(frozen=True)
class Cell:
    text: str
    bold: bool = False
    underlined: bool = False


@dataclass(frozen=True)
class Block:
    """Rows that belong together; `heading` stands above them, an empty one leaves only a rule."""

    heading: str
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Table:
    """A table for readers (`columns`, `blocks`, rounded) and for programs (`data`, unrounded, for the CSV).

    `name` is the file's, `title` what readers call it ("Table 1"; LaTeX counts for itself).
    """

    name: str
    title: str
    caption: str
    columns: tuple[str, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]
    data: pd.DataFrame


def number(value: float, digits: int = 3) -> str:
    """Rounded; an undefined value is a dash, and nothing is ever shown as -0.000."""
    if math.isnan(value):
        return UNDEFINED
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def interval(value: float, low: float, high: float) -> str:
    """`0.907 (0.880–0.930)`, `0.010 (-0.020 to 0.030)`, or the value alone where the interval is undefined."""
    if math.isnan(value) or math.isnan(low) or math.isnan(high):
        return number(value)
    joint = " to " if low < 0 else "–"
    return f"{number(value)} ({number(low)}{joint}{number(high)})"


def ranked(values: Sequence[float], texts: Sequence[str] | None = None, *, second: bool = False) -> tuple[Cell, ...]:
    """Cells with the highest value bold and, where `second`, the next one underlined.

    Values compete as they are shown (3 decimals): what reads the same is marked the same. Undefined values do not
    compete, and nothing is marked where all that compete are equal or only one does.
    """
    shown = [round(value, 3) for value in values]
    levels = sorted({value for value in shown if not math.isnan(value)}, reverse=True)
    best, next_best = (levels[0], levels[1]) if len(levels) > 1 else (math.nan, math.nan)
    texts = [number(value) for value in values] if texts is None else texts
    return tuple(
        Cell(text, bold=value == best, underlined=second and value == next_best)
        for text, value in zip(texts, shown, strict=True)
    )


def plain(*texts: str) -> tuple[Cell, ...]:
    return tuple(Cell(text) for text in texts)


def write_table(table: Table, folder: Path) -> list[Path]:
    """Writes `<name>.csv`, `.md` and `.tex`; returns their paths."""
    paths = [folder / f"{table.name}.{ending}" for ending in ("csv", "md", "tex")]
    write_csv(paths[0], table.data)
    write_text(paths[1], to_markdown(table))
    write_text(paths[2], to_latex(table))
    return paths


def to_markdown(table: Table) -> str:
    """Title and caption, one pipe table per headed block (padded, so that it also reads in a terminal), notes."""
    parts = [f"**{markdown_escape(table.title)}.** {markdown_escape(table.caption)}"]
    for heading, rows in _headed_groups(table.blocks):
        if heading:
            parts.append(f"**{markdown_escape(heading)}**")
        parts.append(_pipe_table(table.columns, rows))
    if table.notes:
        parts.append("\n".join(f"- {markdown_escape(note)}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


def _headed_groups(blocks: Iterable[Block]) -> list[tuple[str, list[tuple[Cell, ...]]]]:
    """Blocks without a heading go on under the one before: Markdown knows no rule inside a table."""
    groups: list[tuple[str, list[tuple[Cell, ...]]]] = []
    for block in blocks:
        if block.heading or not groups:
            groups.append((block.heading, []))
        groups[-1][1].extend(block.rows)
    return groups


def _pipe_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    lines = [[markdown_escape(column) for column in columns]]
    lines += [[_markdown_cell(cell) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    rule = [":" + "-" * (widths[0] - 1)] + [":" + "-" * (width - 2) + ":" for width in widths[1:]]
    padded = [[line[0].ljust(widths[0]), *map(str.center, line[1:], widths[1:])] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in [padded[0], rule, *padded[1:]])


def _markdown_cell(cell: Cell) -> str:
    text = markdown_escape(cell.text)
    text = f"<u>{text}</u>" if cell.underlined else text
    return f"**{text}**" if cell.bold else text


def markdown_escape(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|~]|&(?=#?\w+;))", r"\\\1", " ".join(text.split()))


def to_latex(table: Table) -> str:
    """A `table` environment to paste; it needs the package booktabs."""
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_escape(table.caption)}}}",
        rf"\label{{tab:{re.sub(r'[^0-9A-Za-z+-]', '-', table.name)}}}",
        rf"\begin{{tabular}}{{l{'c' * (len(table.columns) - 1)}}}",
        r"\toprule",
        _latex_row(latex_escape(column) for column in table.columns),
    ]
    for block in table.blocks:
        lines.append(r"\midrule")
        if block.heading:
            lines.append(rf"\multicolumn{{{len(table.columns)}}}{{l}}{{\emph{{{latex_escape(block.heading)}}}}} \\")
        lines += [_latex_row(_latex_cell(cell) for cell in row) for row in block.rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip\footnotesize {latex_escape(note)}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _latex_row(texts: Iterable[str]) -> str:
    return " & ".join(texts) + r" \\"


def _latex_cell(cell: Cell) -> str:
    text = latex_escape(cell.text)
    text = rf"\underline{{{text}}}" if cell.underlined else text
    return rf"\textbf{{{text}}}" if cell.bold else text


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    **{character: "\\" + character for character in "&%$#_{}"},
}


def latex_escape(text: str) -> str:
    escaped = "".join(_LATEX.get(character, character) for character in " ".join(text.split()))
    minus = re.sub(r"^-(?=\d)", "$-$", escaped)
    return re.sub(r"^([*\[])", r"{\1}", minus)  # at the start of a row, `\\` would take them for its own arguments
