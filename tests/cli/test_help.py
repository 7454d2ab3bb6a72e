"""Every command answers at once."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

import spadunet

COMMANDS = {
    point.name: point.value
    for point in metadata.distribution("spadunet").entry_points
    if point.group == "console_scripts"
}
CALL = """
import sys
from {module} import main
sys.argv[0] = {name!r}
try:
    main({arguments!r})
except SystemExit as stop:
    assert stop.code == 0, stop.code
heavy = {{"torch", "numpy", "monai", "scipy", "SimpleITK", "matplotlib", "pydantic", "blosc2"}} & set(sys.modules)
assert not heavy, heavy
"""


def call(name: str, *arguments: str) -> str:
    """What a command prints in a process of its own, without any heavy library."""
    module = COMMANDS[name].split(":")[0]
    code = CALL.format(module=module, name=name, arguments=list(arguments))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands_that_were_promised_are_there():
    promised = [
        "check",
        "compare",
        "convert_btcv",
        "convert_chaos",
        "convert_msd",
        "demo",
        "evaluate",
        "export_chaos",
        "export_model",
        "export_onnx",
        "fingerprint",
        "import_model",
        "index",
        "info",
        "plan",
        "plan_and_preprocess",
        "postprocess",
        "predict",
        "preprocess",
        "pretrain_mim",
        "pretrain_tokenizer",
        "quality",
        "runs",
        "tasks",
        "train",
    ]
    assert sorted(COMMANDS) == [f"spadunet_{verb}" for verb in promised]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_of_the_command_itself_and_imports_nothing_heavy(name: str):
    out = call(name, "--help")
    assert out.startswith(f"usage: {name}")
    examples = out.split("examples:\n")[1].strip().splitlines()
    assert len(examples) >= 2
    started = [line.split("$(which ")[-1] for line in examples]  # by torchrun too
    assert all(line.split()[0].rstrip(")") == name for line in started)
    assert "--debug" in out


def test_version_is_told_without_work():
    assert call("spadunet_train", "--version") == f"spadunet {spadunet.__version__}\n"
