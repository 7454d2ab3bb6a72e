"""What is installed equals what lies in the folders."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOT_INSTALLED = {"tests", "benchmarks", "docs", "build", "dist"}


def read_setup() -> dict[str, Any]:
    """The literal arguments of `setup(...)` in setup.py."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    (call,) = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "setup"]
    wanted = {"packages", "package_dir", "entry_points", "install_requires", "extras_require"}
    return {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg in wanted}


def folder_of(package: str, package_dir: dict[str, str]) -> Path:
    """The folder of a package: from the map, or under the folder of its parent, as setuptools finds it."""
    if package in package_dir:
        return ROOT / package_dir[package]
    parent, _, last = package.rpartition(".")
    return folder_of(parent, package_dir) / last


def package_of(folder: Path) -> str:
    """The name that a folder must be installed as."""
    parts = folder.relative_to(ROOT).parts
    return ".".join(parts if parts[0] == "spadunet" else ("spadunet", *parts))


def folders_with_init() -> set[Path]:
    tops = [path for path in ROOT.iterdir() if path.is_dir() and path.name not in NOT_INSTALLED]
    return {
        init.parent
        for top in tops
        if not top.name.startswith(".") and (top / "__init__.py").exists()
        for init in top.rglob("__init__.py")
    }


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def list_checkout() -> list[str]:
    """Files that git tracks, or would if they were added. Skips where there is no git checkout."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=ROOT)
    return [name for name in listed.split("\0") if name and (ROOT / name).exists()]


def test_setup_lists_every_folder_of_the_package_once():
    packages = read_setup()["packages"]
    assert sorted(packages) == sorted(package_of(folder) for folder in folders_with_init())


def test_setup_maps_each_package_to_its_folder():
    setup = read_setup()
    folders = {package: folder_of(package, setup["package_dir"]) for package in setup["packages"]}
    assert folders == {package_of(folder): folder for folder in folders_with_init()}


def test_every_folder_with_code_is_a_package():
    """A folder without `__init__.py` would be left out of the wheel without a word."""
    tops = {folder for folder in folders_with_init() if folder.parent == ROOT}
    with_code = {path.parent for top in tops for path in top.rglob("*.py")}
    assert with_code == folders_with_init()


@pytest.mark.parametrize("script", read_setup()["entry_points"]["console_scripts"])
def test_console_script_has_its_module_and_main(script):
    name, target = script.split(" = ")
    module, function = target.split(":")
    package, _, stem = module.rpartition(".")
    path = folder_of(package, read_setup()["package_dir"]) / f"{stem}.py"
    assert name == f"spadunet_{stem}"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_requirement_is_pinned_in_constraints():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0] for line in lines if "==" in line}
    setup = read_setup()
    wanted = setup["install_requires"] + [r for extra in setup["extras_require"].values() for r in extra]
    names = {requirement.split(">")[0].strip().lower() for requirement in wanted}
    # It wants older versions of numpy, cc3d and rich than the tested set has; pip finds them without constraints.
    assert names - pinned == {"panoptica"}


def normalised(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def name_of(requirement: str) -> str:
    """The distribution that a requirement asks for."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None, requirement
    return normalised(match[0])


def imported_modules() -> set[str]:
    """Top-level names of all that the package imports, but for Python's own library and itself."""
    found = set()
    for path in sorted(path for folder in folders_with_init() for path in folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"spadunet"}


def test_all_that_is_imported_is_required_and_nothing_else():
    setup = read_setup()
    extras = {r for name, extra in setup["extras_require"].items() if name not in {"dev", "oracle"} for r in extra}
    required = {name_of(requirement) for requirement in setup["install_requires"]}
    allowed = required | {name_of(requirement) for requirement in extras}
    providers = metadata.packages_distributions()
    imported = {module: {normalised(name) for name in providers.get(module, [module])} for module in imported_modules()}
    assert len(imported) > 5
    assert {module: names for module, names in imported.items() if not names & allowed} == {}
    # One comes in through torch.utils.tensorboard; with the other our augmentation is compared, in tests.
    assert required - set().union(*imported.values()) == {"tensorboard", "batchgeneratorsv2"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of an sdist, and of the wheel made from that sdist; built from a copy of the checkout."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in list_checkout():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, source, cwd=dist)
    return dist


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


@pytest.mark.slow
def test_sdist_holds_every_file_of_the_checkout(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert set(list_checkout()) - held == set()


@pytest.mark.slow
def test_wheel_holds_spadunet_alone_and_all_of_it(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    tops = {name.split("/")[0] for name in held}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"spadunet"}

    code = {
        f"{package_of(folder).replace('.', '/')}/{path.name}"
        for folder in folders_with_init()
        for path in folder.glob("*.py")
    }
    data = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "spadunet" / "demo" / "data").rglob("*") if path.is_file()
    }
    assert (code | data | {"spadunet/py.typed"}) - held == set()


@pytest.mark.slow
def test_installed_wheel_imports_away_from_the_checkout(wheel, tmp_path):
    target, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel, cwd=elsewhere)
    code = "import spadunet.plans, spadunet.preprocessing, spadunet.inference, spadunet.evaluation; "
    code += "print(spadunet.plans.__file__)"
    origin = run(sys.executable, "-c", code, cwd=elsewhere, PYTHONPATH=str(target)).strip()
    assert Path(origin) == target / "spadunet" / "plans" / "__init__.py"


@pytest.mark.slow
def test_commands_of_the_wheel_work_in_a_fresh_environment_from_an_empty_folder(wheel, tmp_path):
    """The environment has the libraries of this one by a path, but not its editable spadunet."""
    elsewhere, fresh = tmp_path / "elsewhere", tmp_path / "venv"
    elsewhere.mkdir()
    run(sys.executable, "-m", "venv", "--without-pip", fresh, cwd=elsewhere)
    python = fresh / "bin/python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=elsewhere)
    own = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=elsewhere).strip()
    (Path(own) / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    for name in ("spadunet_info", "spadunet_train", "spadunet_predict"):
        out = run(fresh / "bin" / name, "--help", cwd=elsewhere)
        assert out.startswith(f"usage: {name}")
    assert "torch" in run(fresh / "bin/spadunet_info", cwd=elsewhere, SPADUNET_DATA="")
    origin = run(python, "-c", "import spadunet; print(spadunet.__file__)", cwd=elsewhere).strip()
    assert Path(origin).is_relative_to(fresh)
    assert list(elsewhere.iterdir()) == []
