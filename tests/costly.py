"""Functions whose cost is measured in a process of their own, where test modules cannot be imported."""

from __future__ import annotations

import contextlib
import time


def fill(num_bytes: int) -> int:
    """Touch so many bytes for a tenth of a second, and let them go."""
    held = bytearray(b"\1") * num_bytes
    time.sleep(0.1)
    return len(held)


def predict(options: list[str]) -> None:
    """Run `spadunet_predict`."""
    from spadunet.cli.predict import main

    with contextlib.suppress(SystemExit):
        main(options)
