"""Our classification of MedMNIST v2 under the rows of Luo et al. 2024: Tables 2 (3D) and 3 (2D), AUC and ACC in %.

    python benchmarks/medmnist_tables.py "SPAD-ViT, ours" organmnist3d=out/organ retinamnist=out/retina

takes a scores.json (or its folder) of `spadunet_evaluate` for each dataset, by MedMNIST's name or the paper's. A dash
stands where there is none; an average is of all datasets or is not there.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from spadunet.evaluation.classification import ClassificationScores
from spadunet.evaluation.classification_tables import SCORES_JSON
from spadunet.record import read_record

Row = Mapping[str, tuple[float | None, float | None]]
"""AUC and ACC by dataset, 0 to 1 as scores.json has them; None where an AUC is not defined."""

DATASETS = {
    "Organ": "organmnist3d",
    "Nodule": "nodulemnist3d",
    "Fracture": "fracturemnist3d",
    "Adrenal": "adrenalmnist3d",
    "Vessel": "vesselmnist3d",
    "Synapse": "synapsemnist3d",
    "Derma": "dermamnist",
    "Retina": "retinamnist",
    "Tissue": "tissuemnist",
}
"""By the paper's name, MedMNIST's."""

AVERAGE = "Average"
TABLE_2 = {
    "ResNet-50+3D": (99.4, 88.3, 87.5, 84.7, 72.5, 49.4, 82.8, 74.5, 90.7, 91.8, 85.1, 79.5, 86.3, 78.0),
    "ResNet-50+ACS": (99.4, 88.9, 88.6, 84.1, 75.0, 51.7, 82.8, 75.8, 91.2, 85.8, 71.9, 70.9, 84.8, 76.2),
    "auto-sklearn": (97.7, 81.4, 91.4, 87.4, 62.8, 45.3, 82.8, 80.2, 91.0, 91.5, 63.1, 73.0, 81.5, 76.5),
    "UniMiSS": (99.8, 94.9, 89.9, 84.2, 70.4, 50.8, 87.0, 81.2, 93.8, 94.0, 85.8, 81.8, 87.8, 81.2),
    "SMIT": (99.5, 91.1, 88.4, 85.2, 63.1, 49.6, 84.8, 82.2, 89.7, 91.1, 70.8, 73.3, 82.7, 78.8),
    "EVA-02-B": (99.2, 88.0, 91.0, 85.8, 75.2, 56.7, 86.7, 79.5, 95.8, 95.6, 72.1, 75.3, 86.7, 80.2),
    "Ours": (99.8, 95.6, 94.3, 88.4, 77.6, 55.4, 87.8, 81.2, 97.3, 95.6, 96.4, 91.5, 92.2, 84.6),
}
TABLE_3 = {
    "ResNet-50": (91.2, 73.1, 71.6, 51.1, 93.2, 68.0, 85.3, 64.1),
    "AutoML Vision": (91.4, 76.8, 75.0, 53.1, 92.4, 67.3, 86.3, 65.7),
    "UniMiSS": (90.9, 74.1, 71.2, 52.5, 92.8, 67.6, 85.0, 64.7),
    "EVA-02-B": (94.5, 80.1, 77.8, 54.5, 95.1, 73.5, 89.1, 69.4),
    "Ours": (94.6, 79.2, 77.4, 55.3, 94.9, 73.0, 89.0, 69.2),
}
"""AUC and ACC of each dataset, then the averages; "Ours" is the paper's own row."""
TABLES = {
    "Table 2: 3D": (tuple(DATASETS)[:6], TABLE_2),
    "Table 3: 2D": (tuple(DATASETS)[6:], TABLE_3),
}


def medmnist_tables(rows: Mapping[str, Row]) -> str:
    """Both tables, the paper's rows first and ours, by what they are called, below them.

    Args:
        rows: AUC and ACC of the datasets that there are, by the paper's names.
    """
    return "\n\n".join(
        "\n".join([f"{title} datasets of MedMNIST v2, AUC and ACC in % (Luo et al. 2024)", *lines_of(*table, rows)])
        for title, table in TABLES.items()
    )


def lines_of(datasets: Sequence[str], paper: Mapping[str, Sequence[float]], rows: Mapping[str, Row]) -> list[str]:
    """One table: datasets above pairs of columns, as in the paper."""
    published = {f"{name} (paper)" if name == "Ours" else name: [f"{it:.1f}" for it in paper[name]] for name in paper}
    body = published | {name: cells_of(datasets, row) for name, row in rows.items()}
    width = max(len("Method"), *map(len, body))
    pair = max(11, *(len(name) for name in (*datasets, AVERAGE)))  # two numbers of five and a space
    top = [f"{'Method':{width}}", *(f"{name:^{pair}}" for name in (*datasets, AVERAGE))]
    heads = [" " * width, *[f"{'AUC':>5} {'ACC':>5}".center(pair)] * (len(datasets) + 1)]
    lines = [
        [
            f"{name:{width}}",
            *(f"{auc:>5} {acc:>5}".center(pair) for auc, acc in zip(cells[::2], cells[1::2], strict=True)),
        ]
        for name, cells in body.items()
    ]
    ruled = ["  ".join(line).rstrip() for line in (top, heads, *lines)]
    rule = "-" * max(map(len, ruled))
    return [*ruled[:2], rule, *ruled[2 : 2 + len(paper)], rule, *ruled[2 + len(paper) :]]


def cells_of(datasets: Sequence[str], row: Row) -> list[str]:
    """Percentages of a row of ours, and their means where no dataset lacks one."""
    cells, found = [], []
    for name in datasets:
        values = row.get(name, (None, None))
        found.append(values)
        cells += [percent(value) for value in values]
    for column in zip(*found, strict=True):
        whole = [value for value in column if value is not None]
        cells.append(percent(sum(whole) / len(whole) if len(whole) == len(datasets) else None))
    return cells


def percent(value: float | None) -> str:
    """One place, as in the paper; a dash for none."""
    return "-" if value is None else f"{100 * value:.1f}"


def dataset_named(name: str) -> str:
    """The paper's name of a dataset, from that or MedMNIST's.

    Raises:
        ValueError: if it is not in the tables.
    """
    known = {each.lower(): paper for paper, flag in DATASETS.items() for each in (paper, flag)}
    if name.lower() not in known:
        raise ValueError(f"{name}: no dataset of Tables 2 and 3; they have {', '.join(DATASETS.values())}")
    return known[name.lower()]


def read_row(given: Sequence[str]) -> dict[str, tuple[float | None, float | None]]:
    """AUC and ACC by dataset, from NAME=PATH each."""
    row = {}
    for each in given:
        name, _, path = each.partition("=")
        file = Path(path) / SCORES_JSON if Path(path).is_dir() else Path(path)
        scores = read_record(file, ClassificationScores, remedy="make it with spadunet_evaluate -p predictions.csv")
        row[dataset_named(name)] = scores.auc, scores.accuracy
    return row


def main() -> None:
    """Print both tables with a row of ours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="what our row is called")
    parser.add_argument("scores", nargs="*", metavar="DATASET=PATH", help="scores.json of each dataset, or its folder")
    options = parser.parse_args()
    print(medmnist_tables({options.name: read_row(options.scores)}))


if __name__ == "__main__":
    main()
