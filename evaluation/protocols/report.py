"""What a protocol gives: tables of our scores with published ones beside, as text, CSV and JSON."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence

from pydantic import Field

from ...metrics import metric_of
from ...record import FormatVersion, Record, is_unused
from ...scores import Scores
from ..tables import align

COUNTS = {"cases": "cases", "missed": "missed", "false_alarms": "false alarms"}


class Column(Record):
    """One number of each row."""

    key: str
    title: str
    places: int = 2
    """Decimal places in text."""


class Row(Record):
    """Numbers by the columns' keys; None where there is none."""

    name: str
    is_published: bool = False
    """By others, in print; else scored here."""
    values: dict[str, float | None]
    deviations: dict[str, float] = Field(default={}, exclude_if=is_unused)
    """Standard deviations of values that are means, over folds or runs."""


class Table(Record):
    """Rows below a title."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


class ProtocolReport(Record):
    """protocol.json."""

    format_version: FormatVersion = 1
    protocol: str
    settled: tuple[str, ...]
    """How it was scored, and what of that is not the protocol's."""
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    definitions: dict[str, str]
    """As in scores.json."""


def columns_of(metrics: Iterable[str]) -> tuple[Column, ...]:
    """A column a metric, and the counts of cases, missed classes and false alarms."""
    found = [metric_of(name) for name in metrics]
    columns = [Column(key=metric.name, title=metric.title, places=metric.places) for metric in found]
    return (*columns, *(Column(key=key, title=title, places=0) for key, title in COUNTS.items()))


def row_of(name: str, scores: Scores) -> Row:
    """Means over classes of all metrics, and the counts."""
    classes = scores.summary().values()
    counts = {
        "cases": len(scores.cases),
        "missed": sum(row.num_missed for row in classes),
        "false_alarms": sum(row.num_false_alarms for row in classes),
    }
    return Row(name=name, values={metric: scores.mean(metric) for metric in scores.metrics} | counts)


def mean_row(name: str, rows: Sequence[Row], keys: Iterable[str]) -> Row:
    """Means of several rows, with standard deviations where there are at least two."""
    values: dict[str, float | None] = {}
    deviations = {}
    for key in keys:
        found = [value for row in rows if (value := row.values.get(key)) is not None]
        values[key] = statistics.mean(found) if found else None
        if len(found) > 1:
            deviations[key] = statistics.stdev(found)
    return Row(name=name, values=values, deviations=deviations)


def published_row(name: str, values: Mapping[str, float]) -> Row:
    """A row as printed; Dice, which is printed in per cent, as a share."""
    turned = {key: round(value / 100, 4) if key == "dice" else value for key, value in values.items()}
    return Row(name=f"published: {name}", is_published=True, values=dict(turned))


def part_of(scores: Scores, cases: Iterable[str]) -> Scores:
    """The scores of some of the cases."""
    wanted = set(cases)
    return scores.model_copy(update={"cases": tuple(case for case in scores.cases if case.case in wanted)})


def report_text(report: ProtocolReport) -> str:
    """All tables, then the notes."""
    blocks = ["\n".join([table.title, *align(cells_of(table))]) for table in report.tables]
    return "\n\n".join([*blocks, "\n".join([*report.settled, *report.notes])]) + "\n"


def cells_of(table: Table) -> list[list[str]]:
    """Header and rows as text."""
    rows = [[row.name, *(cell(row, column) for column in table.columns)] for row in table.rows]
    return [["", *(column.title for column in table.columns)], *rows]


def cell(row: Row, column: Column) -> str:
    """A value, with its deviation where there is one; a dash where there is none."""
    value, deviation = row.values.get(column.key), row.deviations.get(column.key)
    if value is None:
        return "-"
    return f"{value:.{column.places}f}" + ("" if deviation is None else f" ± {deviation:.{column.places}f}")


def csv_text(report: ProtocolReport) -> str:
    """One line a value, with how it was scored in a column; notes and definitions are in protocol.json alone.

    Comments above a table would make readers drop what follows a # in a name.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["table", "row", "is_published", "column", "value", "deviation", "settled"])
    settled = "; ".join(report.settled)
    for table in report.tables:
        for row in table.rows:
            for column in table.columns:
                value, deviation = row.values.get(column.key), row.deviations.get(column.key)
                writer.writerow([table.title, row.name, int(row.is_published), column.key, value, deviation, settled])
    return text.getvalue()
