"""How much memory is left on this machine, or in the container or batch job that we run in."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

OWN_GROUPS = Path("/proc/self/cgroup")
GROUP_ROOT = Path("/sys/fs/cgroup")


def available_bytes() -> int:
    """Memory that new work may take without pushing anything out.

    What the system calls available, or less where a control group of Linux (a container's or batch job's limit,
    cgroups 1 and 2) leaves less; files that it holds in its cache count as free.
    """
    return max(min([psutil.virtual_memory().available, *limits_of_groups()]), 0)


def limits_of_groups() -> list[int]:
    """Bytes that are left in each control group with a limit, from our own up to the root."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return []
    left = []
    for line in lines:  # 0::/user.slice or 4:memory:/job_7
        _, controllers, own = line.split(":", 2)
        if controllers == "":
            root, names = GROUP_ROOT, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root, names = (
                GROUP_ROOT / "memory",
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            )
        else:
            continue
        # A container may see its own group as the root, whatever path the kernel tells.
        for group in (root / own.lstrip("/"), *(root / own.lstrip("/")).parents):
            with contextlib.suppress(OSError, ValueError):  # "max" is no limit
                limit, used = (int((group / name).read_text()) for name in names[:2])
                left.append(limit - used + numbers_in(group / "memory.stat").get(names[2], 0))
            if group == root:
                break
    return left


def numbers_in(path: Path) -> dict[str, int]:
    """Lines of a name and a number, as the kernel writes them."""
    return {words[0]: int(words[1]) for line in path.read_text().splitlines() if len(words := line.split()) > 1}
