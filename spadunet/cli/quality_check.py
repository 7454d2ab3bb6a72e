"""`spadunet_quality --check`: quality.csv beside references."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .options import find_workers
from .run import log_to_file, write_manifest

if TYPE_CHECKING:
    from ..evaluation.pairs import Pair
    from ..scores import Scores

Expected = Mapping[str, Mapping[str, float]]
"""Dice by case and class."""


def check(options: argparse.Namespace) -> int:
    """Score the label maps, write numbers and the curve; returns the exit code."""
    from ..evaluation.evaluate import evaluate_pairs
    from ..evaluation.label_names import LABELS_JSON
    from ..evaluation.risk_report import JSON, PNG, check_quality, draw_risk_coverage, summary_of
    from ..evaluation.scoring import Scoring
    from ..files import require_writable
    from ..labels import LabelSet
    from ..record import read_record, write_record

    started = time.time()
    for flag, folder in (("-p", options.predictions), ("-r", options.references)):
        if folder is None:
            raise InputError(f"--check: needs {flag} FOLDER")
        if not folder.is_dir():
            raise InputError(f"{flag} {folder}: folder not found")
    output = options.output or options.predictions
    require_writable(output, dry_run=options.dry_run)
    labels = read_record(options.predictions / LABELS_JSON, LabelSet, remedy="predict again with spadunet_predict")
    pairs, expected = find_judged(options.predictions, options.references)
    if options.dry_run:
        from .dry_run import begin, finish, show

        begin("spadunet_quality")
        show("reads", [f"{len(pairs)} label maps with references and expected Dice"])
        show(f"writes into {output}", [JSON, PNG, "spadunet_quality.json", "spadunet_quality.log"])
        return finish([])
    log_to_file(output / "spadunet_quality.log")
    scores = evaluate_pairs(pairs, labels, scoring=Scoring(metrics=("dice",)), workers=find_workers(options))
    means = case_means(expected, scores)
    if not means:
        raise InputError(f"-r {options.references}: no class of these cases has both an expected and a true Dice")
    result = check_quality(means, tuple(pair.name for pair in pairs if pair.name not in means))
    write_record(output / JSON, result)
    files = [output / JSON, draw_risk_coverage(output / PNG, result)]
    write_manifest(
        output / "spadunet_quality.json", "spadunet_quality", options, started=started, device="cpu", files=files
    )
    print("\n".join([*summary_of(result), f"written: {', '.join(map(str, files))}"]))
    return 1 if scores.failed else 0


def find_judged(folder: Path, references: Path) -> tuple[list[Pair], Expected]:
    """Label maps of a folder, and of review/ in it, that have a reference and rows in quality.csv; what these expect.

    Raises:
        InputError: if there are none, or no Dice is expected of any.
    """
    from ..evaluation.label_names import annotated_in
    from ..evaluation.pairs import label_files, pair_up
    from ..inference.quality_table import QUALITY_CSV, REVIEW_FOLDER, read_table

    table = read_table(folder / QUALITY_CSV)
    predictions = label_files(folder)
    if (folder / REVIEW_FOLDER).is_dir():
        predictions |= label_files(folder / REVIEW_FOLDER)
    found = pair_up(predictions, label_files(references), annotated_in(references, None))
    pairs = [pair for pair in found if pair.prediction is not None and pair.name in table]
    if not pairs:
        raise InputError(f"-r {references}: has no reference of a case in {folder / QUALITY_CSV}")
    expected = {
        pair.name: {row.name: row.expected_dice for row in table[pair.name][:-1] if row.expected_dice is not None}
        for pair in pairs
    }
    if not any(expected.values()):
        raise InputError(
            f"{folder / QUALITY_CSV}: expects no Dice of these cases; spadunet_quality --fit, then predict again"
        )
    return pairs, expected


def case_means(expected: Expected, scores: Scores) -> dict[str, tuple[float, float]]:
    """Expected and true Dice by case: means over the classes that have both; without cases that have none."""
    means = {}
    for score in scores.cases:
        true = {name: it.values.get("dice") for name, it in score.classes.items()}
        known = [(value, true[name]) for name, value in expected[score.case].items()]
        both = [(value, dice) for value, dice in known if dice is not None]
        if both:
            one, other = (sum(column) / len(both) for column in zip(*both, strict=True))
            means[score.case] = one, other
    return means
