"""How long each stage of prediction took."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping

STAGES = ("loading", "network", "blending", "confidence", "export", "writing")


class StageTimes:
    """Seconds by stage, of all cases together; stages of several cases may run at once, so they add up to more."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.lock = threading.Lock()

    @contextlib.contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add how long a block takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            with self.lock:
                self.seconds[stage] += time.perf_counter() - start

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add those of another process."""
        with self.lock:
            for stage, more in seconds.items():
                self.seconds[stage] += more

    def __str__(self) -> str:
        """For the log: `loading 1.2 s, network 30.1 s, …`."""
        return ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in self.seconds.items())
