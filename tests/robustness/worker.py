"""Damages and reads files one after the other, in a process that may crash, hang or run out of memory alone.

python worker.py SOURCES WORK RESULTS SEED FIRST PAST_LAST STEP [images|documents]: a line of JSON for each mutant
before it is read, and one after.
"""

from __future__ import annotations

import faulthandler
import json
import resource
import shutil
import sys
import traceback
from pathlib import Path

import judge
import numpy as np
import SimpleITK as sitk
from damage import DOCUMENTS, IMAGES

TIME_LIMIT_S = 20
EXTRA_BYTES = 1_500_000_000
"""Of address space, beside what libraries take."""


def main(sources: Path, work: Path, results: Path, seed: int, numbers: range) -> None:
    """Read mutants; each follows from the seed and its number alone."""
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    judge.prepare(sources)
    choices = (*IMAGES, *DOCUMENTS)
    shares = np.array([share for share, _ in choices]) / sum(share for share, _ in choices)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + EXTRA_BYTES, resource.RLIM_INFINITY))
    with results.open("a") as file:
        for number in numbers:
            rng = np.random.default_rng([seed, number])
            folder = work / str(number)
            folder.mkdir(exist_ok=True)
            mutant = choices[int(rng.choice(len(choices), p=shares))][1](rng, sources, folder)
            print(json.dumps([number, mutant.kind, mutant.source.name, mutant.said]), file=file, flush=True)
            faulthandler.dump_traceback_later(TIME_LIMIT_S, exit=True)
            try:
                verdict = judge.judge(mutant)
            except Exception as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                verdict = f"WRONG {type(error).__name__}: {error} ({place.filename}:{place.lineno})"
            faulthandler.cancel_dump_traceback_later()
            print(json.dumps([number, verdict]), file=file, flush=True)
            shutil.rmtree(folder)


if __name__ == "__main__":
    seed, first, past_last, step = map(int, sys.argv[4:8])
    main(*map(Path, sys.argv[1:4]), seed, range(first, past_last, step))
