"""What every command shares: its parser, its exit codes, its log and its manifest."""

from __future__ import annotations

import argparse
import datetime
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
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


def run_command(parser: argparse.ArgumentParser, options: argparse.Namespace, work: Callable[[], int]) -> None:
    """Do the work and leave with its exit code; errors meant for the user become one line.

    0 all done; 1 some case failed or a result could not be written; 2 wrong use or bad input.
    """
    # Idle threads of torch spin only briefly: spinning long takes the core from the batch worker, and sleeping at once
    # costs a wake-up at each of many small operators (measured on two cores: a step took half as long again).
    os.environ.setdefault("GOMP_SPINCOUNT", "4000")
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("spadunet").setLevel(logging.INFO)
    try:
        code = work()
    except (InputError, OutputError) as error:
        if options.debug:
            raise
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        code = 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: stopped; the same command goes on from here", file=sys.stderr)
        code = 130
    except OSError as error:
        reason = disk_error_reason(error)
        if options.debug or reason is None:
            raise
        print(f"{parser.prog}: error: {error.filename or 'a file'}: {reason}", file=sys.stderr)
        code = 1
    except Exception as error:
        if options.debug:
            raise
        what = " ".join(str(error).split()) or "no message"
        print(f"{parser.prog}: error: unexpected {type(error).__name__}: {what} (--debug shows where)", file=sys.stderr)
        code = 1
    finally:
        close_log_files()
    sys.exit(code)


def log_to_file(path: Path) -> None:
    """Copy what the run says to a text file, beside the terminal, until the command ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, mode="a", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.getLogger("spadunet").addHandler(handler)


def close_log_files() -> None:
    """Close the text files of `log_to_file`, so that a next command in the same process does not write into them."""
    log = logging.getLogger("spadunet")
    for handler in list(log.handlers):
        if isinstance(handler, logging.FileHandler):
            log.removeHandler(handler)
            handler.close()


def write_manifest(
    path: Path, command: str, options: argparse.Namespace, *, started: float, device: str, files: Sequence[Path]
) -> None:
    """Write what a machine needs to know of a run: versions, options, device, time, files.

    Args:
        started: `time.time()` at the start of the run.
        files: what the run wrote.
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
    }
    write_text(path, json.dumps(manifest, indent=1) + "\n")


def as_json(value: object) -> object:
    """An option's value as JSON can hold it."""
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
