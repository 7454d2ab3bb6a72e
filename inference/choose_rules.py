"""Which post-processing helps, by the predictions of held-out cases.

A step is taken only where it helps by more than noise, over all cases that have the structure in prediction or
reference: the mean Dice gains at least `MIN_GAIN` and more than the standard error of the gains, the mean HD95 gets no
worse, and there are at least `MIN_CASES` of them. First components of each structure, then its holes, then components
of all foreground; each on what is left by the steps before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..errors import InputError
from ..evaluation.borders import Box
from ..evaluation.checks import memory_to_score, turned
from ..evaluation.evaluate import NOWHERE, class_boxes, union_of
from ..evaluation.pairs import Pair
from ..evaluation.scoring import Scoring, score_class
from ..image import LabelMap, geometry_difference, read_label_map
from ..labels import LabelSet, Region
from ..missing import Extent
from ..parallel import map_cases
from ..postprocessing import FOREGROUND, Action, Postprocessing, Rule
from ..scores import ClassScore
from ..workers import THIS_PROCESS, Workers
from .postprocess import apply, clean

MIN_CASES = 5
MIN_GAIN = 0.0005
"""Of mean Dice: half of what is told in a table of three digits."""
SIZES_MM3 = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
SCORING = Scoring(metrics=("dice", "hd95_mm"))


@dataclass(frozen=True, kw_only=True)
class Step:
    """A rule that may be worth taking."""

    structure: str
    action: Action
    min_mm3: float | None = None

    def rule(self, *, num_cases: int = 1, dice: tuple[float, float], hd95_mm: tuple[float, float]) -> Rule:
        """As it is kept."""
        return Rule(
            structure=self.structure,
            action=self.action,
            min_mm3=self.min_mm3,
            num_cases=num_cases,
            dice=dice,
            hd95_mm=hd95_mm,
        )


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Of a step on a structure of one case: Dice and HD95 (mm) before and after."""

    dice: tuple[float, float]
    hd95_mm: tuple[float, float]


Effects = dict[Step, Effect]
NO_EFFECT = (0.0, 0.0)


def choose_rules(pairs: Sequence[Pair], labels: LabelSet, *, workers: Workers = THIS_PROCESS) -> Postprocessing:
    """The steps that help on held-out cases; none where nothing does.

    Args:
        pairs: predictions that no step was applied to, with their references.
        workers: several processes need a call under `if __name__ == "__main__"` in a script.

    Raises:
        InputError: if a case cannot be read or scored; names all.
    """
    names = [structure.name for structure in labels.structures]
    removals: list[tuple[Action, float | None]] = [("keep largest", None)]
    removals += [("remove small", size) for size in SIZES_MM3]
    stages = [
        [[Step(structure=name, action=action, min_mm3=size) for action, size in removals] for name in names],
        [[Step(structure=name, action="fill holes")] for name in names],
    ]
    if len(names) > 1:
        stages.append([[Step(structure=FOREGROUND, action=action, min_mm3=size) for action, size in removals]])
    rules: tuple[Rule, ...] = ()
    for alternatives in stages:
        steps = tuple(step for group in alternatives for step in group)
        measure = partial(effects_on, labels=labels, rules=rules, steps=steps)
        outcomes = list(
            map_cases(measure, pairs, title="Trying post-processing", workers=workers, memory_of=memory_to_score)
        )
        problems = [outcome.problem for outcome in outcomes if outcome.problem is not None]
        if problems:
            raise InputError("\n".join(sorted(problems)))
        effects = [outcome.result for outcome in outcomes if outcome.result is not None]
        found = [best_of(group, effects) for group in alternatives]
        rules += tuple(rule for rule in found if rule is not None)
    return Postprocessing(rules=rules, num_cases=len(pairs))


def best_of(steps: Iterable[Step], effects: Sequence[Effects]) -> Rule | None:
    """Of steps of which one may be taken, that with the largest gain, the first where several have it; or none."""
    found = [rule for step in steps if (rule := worth_taking(step, [it[step] for it in effects if step in it]))]
    return max(found, key=lambda rule: round(rule.dice[1] - rule.dice[0], 9), default=None)


def worth_taking(step: Step, effects: Sequence[Effect]) -> Rule | None:
    """The step as a rule, if it helps by more than noise."""
    if len(effects) < MIN_CASES:
        return None
    dice, hd95 = (np.array([getattr(it, name) for it in effects]) for name in ("dice", "hd95_mm"))  # (cases, 2)
    gains = dice[:, 1] - dice[:, 0]
    noise = gains.std(ddof=1) / math.sqrt(len(gains))
    if gains.mean() < MIN_GAIN or gains.mean() <= noise or hd95[:, 1].mean() > hd95[:, 0].mean():
        return None
    (dice_before, dice_after), (hd95_before, hd95_after) = dice.mean(0).tolist(), hd95.mean(0).tolist()
    return step.rule(num_cases=len(effects), dice=(dice_before, dice_after), hd95_mm=(hd95_before, hd95_after))


def effects_on(pair: Pair, *, labels: LabelSet, rules: Sequence[Rule], steps: Sequence[Step]) -> Effects:
    """What each step would change in a case after the rules; without those whose structure is in neither mask.

    Of all foreground, the mean over structures counts.

    Raises:
        InputError: if a file cannot be read, or the two do not lie on one grid.
    """
    assert pair.prediction is not None
    prediction, reference = clean(read_label_map(pair.prediction), labels, rules), read_label_map(pair.reference)
    prediction = turned(prediction, reference)
    if difference := geometry_difference(prediction, reference):
        raise InputError(f"{pair.prediction}: does not lie on the grid of {pair.reference}: {difference}")
    if labels.ignore_id is not None:
        ignored = reference.array == labels.ignore_id
        prediction = LabelMap(array=np.where(ignored, 0, prediction.array), affine=prediction.affine)
    boxes = class_boxes(prediction.array, reference.array, labels)
    own_boxes = {it.name: union_of([boxes[label_id] for label_id in it.ids]) for it in labels.structures}
    structures = [it for it in labels.structures if own_boxes[it.name] != NOWHERE]
    structures = [it for it in structures if not pair.annotated or it.name in pair.annotated]
    before = {
        it.name: score(prediction.array[own_boxes[it.name]], reference, it, own_boxes[it.name]) for it in structures
    }
    found: Effects = {}
    for step in steps:
        concerned = [it for it in structures if step.structure in (it.name, FOREGROUND)]
        if not concerned:
            continue
        # A step stays within the box of its structure.
        structure = None if step.structure == FOREGROUND else concerned[0]
        changed = (prediction.array if structure is None else prediction.array[own_boxes[structure.name]]).copy()
        trial = step.rule(dice=NO_EFFECT, hd95_mm=NO_EFFECT)
        has_changed = apply(changed, labels, structure, trial, reference.spacing_mm)
        scores = []
        for it in concerned:
            box = own_boxes[it.name]
            part = changed[box] if structure is None else changed
            after = score(part, reference, it, box) if has_changed else before[it.name]
            scores.append((before[it.name], after))  # (structures, before and after, Dice and HD95)
        (dice, hd95), (better, nearer) = np.mean(scores, axis=0).tolist()
        found[step] = Effect(dice=(dice, better), hd95_mm=(hd95, nearer))
    return found


def score(part: np.ndarray, reference: LabelMap, structure: Region, box: Box) -> tuple[float, float]:
    """Dice and HD95 (mm) of a structure in its box; a missing one counts the worst, one in neither mask 1 and 0.

    So a false alarm that is taken away counts for the step that did it.
    """
    masks = [structure.mask_in(it) for it in (part, reference.array[box])]
    found = score_class(masks[0], masks[1], reference.spacing_mm, SCORING)
    if found.outcome == "absent":
        return 1.0, 0.0
    return counted_value(found, "dice", reference), counted_value(found, "hd95_mm", reference)


def counted_value(found: ClassScore, metric: str, reference: LabelMap) -> float:
    """What a value counts, the worst where the structure is in one mask only."""
    extent = Extent(shape_voxels=reference.shape, spacing_mm=reference.spacing_mm, num_voxels=reference.array.size)
    value = found.counted(metric, "worst", extent)
    assert value is not None
    return value
