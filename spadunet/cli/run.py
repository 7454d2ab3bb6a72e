"""What every command shares: its parser, its exit codes, its log and its manifest."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import logging
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from .. import __version__
from ..errors import InputError, OutputError
from ..files import disk_error_reason

LIBRARIES = ("torch", "monai", "SimpleITK", "batchgeneratorsv2", "numpy", "scipy", "blosc2", "pydantic")


class OneLineParser(argparse.ArgumentParser):
    """A parser that answers wrong use with one line; the whole usage is for `--help`."""

    def error(self, message: str) -> NoReturn:
        """Print the line and leave with exit code 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def make_parser(description: str, examples: str) -> argparse.ArgumentParser:
    """A parser with `--version` and `--debug`, whose help ends with examples."""
    parser = OneLineParser(
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"spadunet {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    return parser


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """`--data`: the folder that holds raw/, preprocessed/ and results/."""
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="folder with raw/, preprocessed/ and results/ (else SPADUNET_DATA, else ./spadunet_data)",
    )


def add_dry_run_option(parser: argparse.ArgumentParser) -> None:
    """`--dry-run`: of every command that may take long. It must then write nothing."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="say what would be read and written, which files belong together, and about how much time, memory and "
        "disk it takes; write nothing",
    )


def run_command(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    work: Callable[[], int],
    *,
    if_stopped: str = "nothing half-written is left",
) -> None:
    """Do the work and leave with its exit code; errors meant for the user become one line, on screen and in the log.

    0 all done; 1 some case failed or a result could not be written; 2 wrong use or bad input; 130 stopped by Ctrl-C or
    SIGTERM, with `if_stopped` as advice.
    """
    # Idle threads of torch spin only briefly: spinning long takes the core from the batch worker, and sleeping at once
    # costs a wake-up at each of many small operators (measured on two cores: a step took half as long again).
    os.environ.setdefault("GOMP_SPINCOUNT", "4000")
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("spadunet").setLevel(logging.DEBUG if options.debug else logging.INFO)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    rank = os.environ.get("RANK", "0")  # torchrun's, of several processes of a run
    name = parser.prog if rank == "0" else f"{parser.prog} (rank {rank})"
    try:
        code = work()
    except (InputError, OutputError) as error:
        if options.debug:
            raise
        report(f"{name}: error: {error}")
        code = 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        report(f"{name}: stopped; {if_stopped}")
        code = 130
    except Exception as error:
        if options.debug:
            raise
        reason = disk_error_reason(error)
        what = " ".join(str(error).split()) or "no message"
        if isinstance(error, OSError) and reason is not None:
            report(f"{name}: error: {error.filename or 'a file'}: {reason}")
        else:
            report(f"{name}: error: unexpected {type(error).__name__}: {what} (--debug shows where)")
        code = 1
    finally:
        close_log_files()
    sys.exit(code)


class LogFile(logging.FileHandler):
    """A log that gives up in silence when it cannot be written, as on a full disk: the screen has every line too."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Logging's traceback for anything but a disk that refuses."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def report(line: str) -> None:
    """Say on screen and in the log why a command ends early."""
    print(line, file=sys.stderr)
    for handler in log_files():
        handler.handle(logging.makeLogRecord({"msg": line}))


def log_to_file(path: Path) -> logging.FileHandler:
    """Copy what the run says to a text file, beside the terminal, until the command ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = LogFile(path, mode="a", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.getLogger("spadunet").addHandler(handler)
    return handler


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """As `log_to_file`, for a while; where that file is written already, as it is."""
    if any(handler.baseFilename == os.path.abspath(path) for handler in log_files()):
        yield
        return
    handler = log_to_file(path)
    try:
        yield
    finally:
        close_log_file(handler)


def log_files() -> list[logging.FileHandler]:
    """The text files of `log_to_file`."""
    return [handler for handler in logging.getLogger("spadunet").handlers if isinstance(handler, logging.FileHandler)]


def close_log_files() -> None:
    """So that a next command in the same process does not write into them."""
    for handler in log_files():
        close_log_file(handler)


def close_log_file(handler: logging.FileHandler) -> None:
    """What the run says from now on is not in it."""
    logging.getLogger("spadunet").removeHandler(handler)
    with contextlib.suppress(OSError):
        handler.close()


def write_manifest(
    path: Path,
    command: str,
    options: argparse.Namespace,
    *,
    started: float,
    device: str,
    files: Sequence[Path],
    more: Mapping[str, object] | None = None,
) -> None:
    """Write what a machine needs to know of a run: versions, options, device, time, files.

    Args:
        started: `time.time()` at the start of the run.
        files: what the run wrote.
        more: further keys, of values that JSON can hold.
    """
    import json

    from ..files import write_text

    manifest = {
        "command": command,
        "spadunet": __version__,
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "options": {name: as_json(value) for name, value in sorted(vars(options).items())},
        "device": device,
        "started": datetime.datetime.fromtimestamp(started, datetime.timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 1),
        "files": [str(file) for file in files],
        **(more or {}),
    }
    write_text(path, json.dumps(manifest, indent=1) + "\n")


def as_json(value: object) -> object:
    """An option's value as JSON can hold it."""
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
