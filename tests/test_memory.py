"""Memory that is left, from the kernel's files as real systems have them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from spadunet import memory
from spadunet.memory import available_bytes

MIB = 2**20


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 64 GiB free and no control groups."""
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "fs").mkdir()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * 1024 * MIB))
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "GROUP_ROOT", tmp_path / "fs")
    return tmp_path


def limit(group: Path, names: tuple[str, str, str], max_mib: object, used_mib: int, cached_mib: int) -> None:
    """A control group with a limit."""
    group.mkdir(parents=True, exist_ok=True)
    (group / names[0]).write_text(f"{max_mib * MIB if isinstance(max_mib, int) else max_mib}\n")
    (group / names[1]).write_text(f"{used_mib * MIB}\n")
    (group / "memory.stat").write_text(f"anon 1\n{names[2]} {cached_mib * MIB}\n")


TWO = ("memory.max", "memory.current", "inactive_file")
ONE = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def test_without_limits_it_is_what_the_system_calls_available(system: Path):
    assert available_bytes() == 64 * 1024 * MIB


def test_a_container_has_what_its_limit_leaves_and_its_cached_files(system: Path):
    limit(system / "fs", TWO, 8192, 3000, 1000)
    assert available_bytes() == (8192 - 3000 + 1000) * MIB


def test_a_limit_of_any_group_above_counts(system: Path):
    """As of a batch job, whose task has no limit of its own."""
    (system / "cgroup").write_text("0::/slurm/job_7/task_0\n")
    limit(system / "fs/slurm/job_7/task_0", TWO, "max", 100, 0)
    limit(system / "fs/slurm/job_7", TWO, 2048, 1048, 0)
    assert available_bytes() == 1000 * MIB


def test_control_groups_of_the_first_version_count_too(system: Path):
    (system / "cgroup").write_text("5:cpu:/\n4:memory:/docker/abc\n0::/\n")
    limit(system / "fs/memory", ONE, 4096, 96, 0)  # the container sees its own group as the root
    assert available_bytes() == 4000 * MIB


def test_a_group_over_its_limit_leaves_nothing(system: Path):
    limit(system / "fs", TWO, 100, 200, 0)
    assert available_bytes() == 0


def test_without_the_kernels_files_it_is_what_the_system_calls_available(system: Path):
    (system / "cgroup").unlink()
    assert available_bytes() == 64 * 1024 * MIB


def test_this_machine_has_memory():
    assert available_bytes() > 100 * MIB
