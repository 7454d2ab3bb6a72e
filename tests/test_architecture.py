"""The floors of the house: who may import whom, and what no file may do.

Imports are read from the source with `ast`, those inside functions included,
so that nothing is run and a missing module is no error here.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CLI = ROOT / "spadunet" / "cli"

# Folder of each part and its floor. A file sees its own part and the floors below.
FOLDERS = {
    "spadunet": ("spadunet", 1),
    "spadunet.pretrained": ("spadunet/pretrained", 2),
    "spadunet.network": ("spadunet/network", 2),
    "spadunet.plans": ("plans", 2),
    "spadunet.preprocessing": ("preprocessing", 2),
    "spadunet.evaluation": ("evaluation", 2),
    "spadunet.inference": ("inference", 3),
    "spadunet.training": ("spadunet/training", 4),
    "spadunet.pretraining": ("spadunet/pretraining", 5),
    "spadunet.classification": ("spadunet/classification", 5),
    "spadunet.sharing": ("spadunet/sharing", 4),
    "spadunet.cli": ("spadunet/cli", 6),
    "spadunet.demo": ("spadunet/demo", 6),
}
# On one floor only a command may look into another part: `spadunet_demo` starts the demo.
SIDEWAYS = {("spadunet.cli", "spadunet.demo")}

# `from spadunet import Predictor` leads up, and is opened only when it is asked for.
FACES = {
    ("spadunet", "spadunet.inference.predictor"),
    ("spadunet", "spadunet.inference.classifier"),
}

STAGES = {"plans", "preprocessing", "evaluation", "inference"}
HEAVY = {"torch", "monai", "SimpleITK", "scipy", "matplotlib", "numpy", "blosc2", "batchgenerators", "acvl_utils"}
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
EMPTY_NAMES = {"utils.py", "helpers.py", "misc.py", "base.py", "common.py"}


@dataclass(frozen=True, kw_only=True)
class Module:
    name: str
    package: str
    path: Path
    tree: ast.Module

    def __str__(self) -> str:
        return self.path.relative_to(ROOT).as_posix()


@dataclass(frozen=True, kw_only=True)
class Import:
    target: str
    line: int
    is_relative: bool
    is_top_level: bool

    @property
    def library(self) -> str:
        return self.target.split(".")[0]


def read_modules() -> list[Module]:
    modules = []
    for part, (folder, _) in FOLDERS.items():
        # Floor one is the files of spadunet/ alone; the other parts hold their subfolders too.
        pattern = "*.py" if part == "spadunet" else "**/*.py"
        for path in sorted((ROOT / folder).glob(pattern)):
            inner = path.relative_to(ROOT / folder).with_suffix("").parts
            package = ".".join([part, *inner[:-1]])
            name = package if inner[-1] == "__init__" else f"{package}.{inner[-1]}"
            tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
            modules.append(Module(name=name, package=package, path=path, tree=tree))
    return modules


def find_imports(tree: ast.Module, package: str, known: set[str]) -> Iterator[Import]:
    """Every import with its absolute target; `from . import x` is the module x where there is one."""
    top_level = set(nodes_run_at_import(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets, is_relative = [alias.name for alias in node.names], False
        elif isinstance(node, ast.ImportFrom):
            is_relative = node.level > 0
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if is_relative else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            children = [f"{source}.{alias.name}" for alias in node.names]
            targets = [child if child in known else source for child in children]
        else:
            continue
        for target in dict.fromkeys(targets):
            yield Import(target=target, line=node.lineno, is_relative=is_relative, is_top_level=node in top_level)


def nodes_run_at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes outside functions and outside `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from nodes_run_at_import(node)


def part_of(name: str) -> str:
    """The part of FOLDERS that a module belongs to; what is not in a deeper part is floor one."""
    return max((part for part in FOLDERS if f"{name}.".startswith(f"{part}.")), key=len)


MODULES = read_modules()
NAMES = {module.name for module in MODULES}
IMPORTS = {module: list(find_imports(module.tree, module.package, NAMES)) for module in MODULES}


def offences(is_bad) -> list[str]:
    """`file:line imports target` for each import that `is_bad(module, imported)`."""
    return [
        f"{module}:{imported.line} imports {imported.target}"
        for module, imports in IMPORTS.items()
        for imported in imports
        if is_bad(module, imported)
    ]


def is_ours(imported: Import) -> bool:
    return imported.library == "spadunet"


def test_imports_are_read_from_source_as_python_resolves_them():
    source = """
import os.path
from . import patch, num_axes
from ..case import Case
if TYPE_CHECKING:
    import numpy
def main():
    import torch
"""
    found = find_imports(ast.parse(source), "spadunet.plans", {"spadunet.plans.patch"})
    assert [(i.target, i.line, i.is_relative, i.is_top_level) for i in found] == [
        ("os.path", 2, False, True),
        ("spadunet.plans.patch", 3, True, True),
        ("spadunet.plans", 3, True, True),
        ("spadunet.case", 4, True, True),
        ("numpy", 6, False, False),
        ("torch", 8, False, False),
    ]


def test_every_part_has_files():
    assert {part_of(name) for name in NAMES} == set(FOLDERS)


def test_imports_go_down_the_floors():
    def goes_up(module: Module, imported: Import) -> bool:
        if not is_ours(imported):
            return False
        here, there = part_of(module.name), part_of(imported.target)
        is_face = (module.name, imported.target) in FACES and not imported.is_top_level
        is_allowed = is_face or here == there or FOLDERS[there][1] < FOLDERS[here][1] or (here, there) in SIDEWAYS
        return not is_allowed

    assert offences(goes_up) == []


def test_network_imports_torch_spacing_and_itself_only():
    def is_foreign(module: Module, imported: Import) -> bool:
        if part_of(module.name) != "spadunet.network":
            return False
        if is_ours(imported):
            return imported.target != "spadunet.spacing" and part_of(imported.target) != "spadunet.network"
        return imported.library != "torch" and imported.library not in sys.stdlib_module_names

    assert offences(is_foreign) == []


def test_imports_inside_the_package_are_relative():
    assert offences(lambda module, imported: is_ours(imported) and not imported.is_relative) == []


@pytest.mark.parametrize("folder", ["tests", "benchmarks", *(folder for folder, _ in FOLDERS.values())])
def test_nobody_imports_a_stage_by_its_folder_name(folder):
    """`import plans` would make a second `Plan` beside `spadunet.plans`."""
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        for imported in find_imports(tree, "here", set()):
            if not imported.is_relative and imported.library in STAGES:
                found.append(f"{path.relative_to(ROOT)}:{imported.line} imports {imported.target}")
    assert found == []


def test_imported_modules_exist():
    def is_missing(module: Module, imported: Import) -> bool:
        return is_ours(imported) and imported.target not in NAMES

    assert offences(is_missing) == []


def find_circle(edges: dict[str, set[str]]) -> list[str]:
    """One circle as a list of names, the first one repeated at the end; empty where there is none."""
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name not in done:
            for target in sorted(edges.get(name, ())):
                if circle := walk(target, [*trail, name]):
                    return circle
            done.add(name)
        return []

    for start in sorted(edges):
        if circle := walk(start, []):
            return circle
    return []


def test_a_circle_of_three_is_found_and_a_diamond_is_none():
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert find_circle({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}}) == []


def test_no_imports_in_a_circle():
    edges = {
        module.name: {imported.target for imported in imports if is_ours(imported)} - {module.name}
        for module, imports in IMPORTS.items()
    }
    for above, below in FACES:
        edges[above].remove(below)
    assert find_circle(edges) == []


def test_commands_import_heavy_libraries_inside_functions():
    def is_early(module: Module, imported: Import) -> bool:
        return module.package == "spadunet.cli" and imported.is_top_level and imported.library in HEAVY

    assert offences(is_early) == []


@pytest.mark.parametrize("command", sorted(path.stem for path in CLI.glob("*.py")))
def test_importing_a_command_loads_no_heavy_library(command):
    name = "spadunet.cli" if command == "__init__" else f"spadunet.cli.{command}"
    code = f"import sys, {name}; print(*sorted(set(sys.modules) & {HEAVY!r}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []


def test_files_are_named_after_their_idea():
    assert [str(module) for module in MODULES if module.path.name in EMPTY_NAMES] == []


def test_medpy_is_never_imported_by_the_package():
    """It is GPL-3: the tests compare with it, the package must run without it."""
    assert offences(lambda module, imported: imported.library == "medpy") == []


def test_no_pickle():
    assert offences(lambda module, imported: imported.library in PICKLES) == []


NOT_OURS = {".venv", "build", "dist", "spadunet_data", "spadunet_demo_output"}
UNSAFE_LOADS = {
    *(f"{library}.{name}" for library in PICKLES for name in ("load", "loads", "Unpickler")),
    *(f"torch.{name}" for name in ("jit.load", "hub.load", "package.PackageImporter", "serialization.load")),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "pandas.read_pickle", "shelve.open"),
}
"""What may run code that a file holds."""
TORCHSCRIPT = "torch.jit."
"""Deprecated, and no file of a model needs it: ONNX comes from `torch.export`."""
SIGNS = re.compile(r"\w*load\b|loads|Unpickler|pickle|shelve|PackageImporter|\bjit\b|\bonnx\b")
"""A file without any of these words has none of them: it need not be parsed."""


def source_files() -> list[Path]:
    """All Python of the repository: the package, tests, benchmarks, setup."""
    found = sorted(ROOT.rglob("*.py"))
    return [path for path in found if not NOT_OURS & set(path.relative_to(ROOT).parts)]


def full_names(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for: `np` for `numpy`, `load` of `from torch import load` for `torch.load`."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def dotted(node: ast.AST) -> str:
    """`torch.jit.load` of its node; empty for anything but names and dots."""
    if isinstance(node, ast.Attribute):
        owner = dotted(node.value)
        return f"{owner}.{node.attr}" if owner else ""
    return node.id if isinstance(node, ast.Name) else ""


def word_of(call: ast.Call | None, word: str) -> str | None:
    """The source of a call's keyword argument."""
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords} if call else {}
    return given.get(word)


def used_names(tree: ast.Module) -> Iterator[tuple[ast.Attribute | ast.Name, str]]:
    """Every name that is used, in full."""
    names = full_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            first, dot, rest = dotted(node).partition(".")
            yield node, names.get(first, first) + dot + rest


def torchscript(tree: ast.Module) -> list[int]:
    """Lines that use TorchScript, `torch.onnx.export` by way of it included."""
    calls = {node.func: node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return sorted(
        node.lineno
        for node, name in used_names(tree)
        if name.startswith(TORCHSCRIPT)
        or (name == "torch.onnx.export" and word_of(calls.get(node), "dynamo") != "True")
    )


def unsafe_loads(tree: ast.Module) -> list[int]:
    """Lines that load what may run code: `torch.load` without `weights_only=True`, pickles, `allow_pickle=True`."""
    calls = {node.func: node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    lines = [
        node.lineno
        for node, name in used_names(tree)
        if name in UNSAFE_LOADS or (name == "torch.load" and word_of(calls.get(node), "weights_only") != "True")
    ]
    lines += [it.lineno for it in calls.values() if word_of(it, "allow_pickle") not in (None, "False")]
    return sorted(lines)


def test_unsafe_loads_are_seen():
    source = """
import numpy as np, torch as t, pickle
from torch import load as read
from joblib import load
import yaml
t.load(p)
t.load(p, weights_only=True)
read(p)
read(p, weights_only=False)
read(p, weights_only=safe)
t.jit.load(p)
np.load(p, allow_pickle=True)
np.load(p)
load(p)
functools.partial(t.load, map_location="cpu")
pickle.load(p)
pickle.dumps(p)
yaml.load(p)
yaml.safe_load(p)
json.load(p)
"""
    assert all(SIGNS.search(name) for name in UNSAFE_LOADS)
    assert unsafe_loads(ast.parse(source)) == [6, 8, 9, 10, 11, 12, 14, 15, 16, 18]


def test_torchscript_is_seen():
    source = """
import torch
from torch import jit
from torch.jit import script as compiled
torch.jit.trace(network, x)
@torch.jit.script
def double(x): return 2 * x
jit.save(network, p)
compiled(network)
torch.onnx.export(network, x, p)
torch.onnx.export(network, x, p, dynamo=False)
torch.onnx.export(network, x, p, dynamo=True)
torch.export.export(network, x)
numba.jit(double)
"""
    assert all(SIGNS.search(name) for name in (TORCHSCRIPT, "torch.onnx.export"))
    assert torchscript(ast.parse(source)) == [5, 6, 8, 9, 10, 11]


@pytest.mark.parametrize("folder", ["spadunet", "inference", "plans", "tests", "benchmarks"])
def test_all_source_is_looked_at(folder: str):
    assert any(path.is_relative_to(ROOT / folder) for path in source_files())


@pytest.mark.parametrize("find", [unsafe_loads, torchscript])
def test_nothing_in_the_repository_is_loaded_that_can_run_code_or_made_by_torchscript(find):
    texts = {path: path.read_text(encoding="utf-8") for path in source_files()}
    trees = {path: ast.parse(text) for path, text in texts.items() if SIGNS.search(text)}
    assert {ROOT / "spadunet/weights.py", ROOT / "spadunet/sharing/onnx_network.py"} <= trees.keys()
    assert [f"{path.relative_to(ROOT)}:{line}" for path, tree in trees.items() for line in find(tree)] == []


def test_itk_reads_and_writes_files_where_they_are_locked_alone():
    """`ITK_LOCK`; that it is held there, a test of the formats sees."""
    calls = re.compile(r"\bsitk\.(ReadImage|WriteImage|Image(File|Series)(Reader|Writer))\b|from SimpleITK import")
    package = [path for path in source_files() if not path.is_relative_to(ROOT / "tests")]
    package = [path for path in package if not path.is_relative_to(ROOT / "benchmarks")]
    found = {path.relative_to(ROOT).as_posix() for path in package if calls.search(path.read_text(encoding="utf-8"))}
    assert found == {"spadunet/formats.py", "spadunet/dicom.py"}
