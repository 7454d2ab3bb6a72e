"""`spadunet_compare` as a user calls it, on the demo's real references and predictions made of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

import spadunet
from spadunet.cli.compare import main
from spadunet.cli.evaluate import main as evaluate
from spadunet.evaluation.compare import comparison
from spadunet.evaluation.compare.comparison import Comparison
from spadunet.evaluation.compare.paired import Paired
from spadunet.image import LabelMap, read_label_map, write_label_map

DEMO = Path(spadunet.__file__).parent / "demo/data/Dataset004_Hippocampus"
CASES = 10


def exit_code(command, *arguments: object) -> int:
    """What a command leaves with."""
    with pytest.raises(SystemExit) as caught:
        command([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores of three models: one shifts all by a voxel, one erodes each tail, one does so and misses a tail."""
    root = tmp_path_factory.mktemp("scored")
    for path in sorted((DEMO / "labelsTs").glob("*.nii.gz")):
        reference = read_label_map(path)
        eroded = reference.array.copy()
        tail = eroded == 2
        eroded[tail & ~binary_erosion(tail)] = 0
        lacking = np.where(eroded == 2, 0, eroded) if "014" in path.name else eroded
        for name, array in (("shifted", np.roll(reference.array, 1, axis=0)), ("eroded", eroded), ("lacking", lacking)):
            write_label_map(root / name / path.name, LabelMap(array=array, affine=reference.affine))
    for name in ("shifted", "eroded", "lacking"):
        common = ("-r", DEMO / "labelsTs", "--labels", DEMO / "dataset.json", "-np", 1)
        assert exit_code(evaluate, "-p", root / name, *common) == 0
    return root


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_writes_json_csv_pictures_table_and_manifest(scored: Path, here: Path, capsys: pytest.CaptureFixture[str]):
    folders = [scored / name for name in ("shifted", "eroded", "lacking")]
    assert exit_code(main, *folders, "--metrics", "dice", "hd_mm", "--resamples", 500) == 0
    out = capsys.readouterr().out
    assert f"{CASES} cases that all 3 models share" in out
    written = Comparison.from_json((here / "comparison/compare.json").read_text())
    assert [model.name for model in written.models] == ["shifted", "eroded", "lacking"]
    verdicts = {(it.metric, it.first, it.second, it.class_name): it.winner or it.verdict for it in written.differences}
    assert len(verdicts) == 2 * 3 * 3
    assert verdicts["dice", "shifted", "eroded", "Anterior"] == "eroded"
    assert verdicts["dice", "eroded", "lacking", "Anterior"] == "within noise"
    assert verdicts["dice", "eroded", "lacking", "Posterior"] == "too few patients"  # a single tail of ten differs
    (one,) = [
        it
        for it in written.differences
        if (it.metric, it.first, it.second, it.class_name) == ("dice", "eroded", "lacking", "Posterior")
    ]
    assert (one.num_first_better, one.num_equal, one.num_second_better) == (1, 9, 0)
    assert verdicts["hd_mm", "eroded", "lacking", "Posterior"] != "lacking"
    assert {ranking.metric: ranking.models[0] for ranking in written.rankings} == {
        "dice": "eroded",
        "hd_mm": "shifted",
    }
    files = ["compare.json", "compare.csv", "differences_dice.png", "differences_hd_mm.png", "ranking.png"]
    manifest = json.loads((here / "comparison/spadunet_compare.json").read_text())
    assert manifest["files"] == [f"comparison/{name}" for name in files]
    assert manifest["options"]["seed"] == 0
    assert f"{CASES} cases of {CASES} patients" in (here / "comparison/spadunet_compare.log").read_text()
    for name in files[2:]:
        assert (here / "comparison" / name).read_bytes().startswith(b"\x89PNG")


def test_the_same_command_gives_the_same_files_and_another_seed_others(scored: Path, here: Path):
    common = (scored / "shifted", scored / "lacking" / "scores.json", "--metrics", "assd_mm", "--resamples", 300, "-o")
    for output, seed in (("one", 0), ("two", 0), ("three", 1)):
        assert exit_code(main, *common, output, "--seed", seed) == 0
    for name in ("compare.json", "compare.csv", "differences_assd_mm.png", "ranking.png"):
        assert (here / "one" / name).read_bytes() == (here / "two" / name).read_bytes()
    assert (here / "one/compare.csv").read_text() != (here / "three/compare.csv").read_text()


def test_pictures_of_the_last_comparison_do_not_stay_and_others_do(scored: Path, here: Path):
    common = (scored / "shifted", scored / "lacking", "--resamples", 20, "-o", "out")
    assert exit_code(main, *common, "--metrics", "dice", "hd95") == 0
    (here / "out/differences_mine.png").write_bytes(b"of the user")
    (here / "out/spadunet_compare.log").write_text("")
    assert exit_code(main, *common, "--metrics", "dice") == 0
    names = {path.name for path in (here / "out").glob("*.png")}
    assert names == {"differences_dice.png", "differences_mine.png", "ranking.png"}
    log = (here / "out/spadunet_compare.log").read_text()
    assert "removed differences_hd95_mm.png of the last comparison" in log
    (here / "out/spadunet_compare.json").write_text("[]")
    assert exit_code(main, *common, "--metrics", "assd") == 0


def test_names_patients_and_shared_cases(scored: Path, here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    fewer = here / "fewer"
    shutil.copytree(scored / "eroded", fewer)
    (fewer / "hippocampus_014.nii.gz").unlink()
    common = ("-r", DEMO / "labelsTs", "--labels", DEMO / "dataset.json", "-np", 1, "--allow-missing")
    references = here / "references"
    shutil.copytree(DEMO / "labelsTs", references)
    (references / "hippocampus_014.nii.gz").unlink()
    assert exit_code(evaluate, "-p", fewer, "-r", references, *common[2:]) == 0
    description = json.loads((DEMO / "dataset.json").read_text())
    names = sorted(path.name.removesuffix(".nii.gz") for path in references.iterdir())
    patients = here / "dataset.json"
    patients.write_text(json.dumps(description | {"patients": {name: f"p{i // 2}" for i, name in enumerate(names)}}))
    capsys.readouterr()
    options = ("--names", "all", "part", "--patients", patients, "--resamples", 200, "--metrics", "dice")
    assert exit_code(main, scored / "shifted", fewer, *options) == 0
    out = capsys.readouterr().out
    assert "9 cases of 5 patients that all 2 models share" in out
    assert "cases that others have and part lacks: 1 (hippocampus_014)" in out
    assert "too few" in out  # 5 patients


def test_dry_run_says_what_would_be_done_and_writes_nothing(
    scored: Path, here: Path, capsys: pytest.CaptureFixture[str]
):
    assert exit_code(main, scored / "shifted", scored / "eroded", "-o", "x/y", "--dry-run") == 0
    out = capsys.readouterr().out
    assert out.startswith("spadunet_compare --dry-run: nothing is written")
    assert f"cases: {CASES} of {CASES} patients" in out
    assert "differences_dice.png: new" in out
    assert "estimate" in out
    assert list(here.iterdir()) == []


def test_dry_run_tries_one_pair_of_models_by_one_metric(scored: Path, here: Path, monkeypatch: pytest.MonkeyPatch):
    tried, real = [], comparison.compare

    def compare(paired: Paired, *, resamples: int, seed: int) -> Comparison:
        tried.append((len(paired.models), len(paired.metrics), resamples))
        return real(paired, resamples=resamples, seed=seed)

    monkeypatch.setattr(comparison, "compare", compare)
    folders = [scored / name for name in ("shifted", "eroded", "lacking")]
    assert exit_code(main, *folders, "--dry-run") == 0
    assert tried == [(2, 1, 1000)]


def test_wrong_use_is_told_before_anything_is_written(scored: Path, here: Path, capsys: pytest.CaptureFixture[str]):
    both = (scored / "shifted", scored / "eroded")
    other = here / "other"
    other.mkdir()
    text = (scored / "eroded/scores.json").read_text()
    (other / "scores.json").write_text(text.replace("Anterior", "Frontal"))
    for arguments, message in (
        ((scored / "shifted",), "give at least two models to compare"),
        ((scored / "shifted", here / "none"), "none: not found"),
        ((scored / "shifted", other), "the classes differ: Anterior, Posterior and Frontal, Posterior"),
        ((*both, "--metrics", "volume"), "--metrics volume: metrics that can be compared are dice"),
        ((*both, "--names", "one"), "--names one: give 2 different names"),
        ((*both, "--patients", here / "none.json"), "none.json: not found; give a dataset.json"),
        ((*both, "--resamples", 0), "argument --resamples: 0 is not above zero"),
        ((*both, "-o", other / "scores.json"), "scores.json: cannot be written"),
    ):
        assert exit_code(main, *arguments) == 2, arguments
        error = capsys.readouterr().err
        assert message in error
        assert len(error.strip().splitlines()) == 1
    assert [path.name for path in here.iterdir()] == ["other"]


WITHOUT_TORCH = """
import sys
from spadunet.cli.{command} import main
try:
    main({arguments!r})
except SystemExit as stop:
    assert stop.code == 0, stop.code
assert "torch" not in sys.modules
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["compare", "evaluate"])
def test_the_whole_command_runs_without_torch(command: str, scored: Path, tmp_path: Path):
    folders = [str(scored / name) for name in ("shifted", "eroded")]
    arguments = {
        "compare": [*folders, "-o", str(tmp_path), "--resamples", "50", "--metrics", "dice"],
        "evaluate": ["-p", folders[0], "-r", str(DEMO / "labelsTs"), "-o", str(tmp_path), "-np", "1"],
    }[command]
    code = WITHOUT_TORCH.format(command=command, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "written: " in done.stdout
