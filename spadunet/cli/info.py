"""spadunet_info: versions, device, paths, what is there."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from pathlib import Path

from .. import __version__
from .run import LIBRARIES, add_data_option, make_parser, run_command
from .stages import PLAN_JSON

EXAMPLES = """\
  spadunet_info
  spadunet_info --data /scratch/spadunet_data
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser(
        "Show versions, device, every path and where it came from, datasets, corpora and models.", EXAMPLES
    )
    add_data_option(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options))


def execute(options: argparse.Namespace) -> int:
    """Print it all."""
    from importlib import metadata

    from ..errors import InputError
    from ..model import read_model_record
    from ..models import find_models
    from ..network.device import choose_device, choose_precision
    from ..pretrained import BACKBONE, TOKENIZER
    from ..workspace import find_workspace

    workspace = find_workspace(options.data)
    device = choose_device("auto")
    print(f"spadunet   {__version__}, Python {platform.python_version()}, {platform.platform()}")
    print("libraries  " + ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES))
    print(f"device     {device}, {str(choose_precision('auto', device)).removeprefix('torch.')}")
    print(f"data       {workspace.folder.resolve()} (from {workspace.origin})")
    for title, folder in (
        ("raw", workspace.raw),
        ("preprocessed", workspace.preprocessed),
        ("corpora", workspace.corpora),
        ("results", workspace.results),
    ):
        print(f"  {title:13}{folder.resolve()}{'' if folder.is_dir() else ' (not there)'}")
    print("datasets")
    for folder in sorted(path for path in workspace.raw.glob("*") if path.is_dir()):
        state = "planned" if (workspace.preprocessed / folder.name / PLAN_JSON).is_file() else "not planned"
        print(f"  {folder.name}  ({state})")
    show_corpora(workspace.corpora)
    print("models")
    for folder in find_models(workspace.results):
        try:
            record = read_model_record(folder)
        except InputError as error:
            print(f"  {folder.relative_to(workspace.results)}  (cannot be used: {error})")
            continue
        about = f"{record.backbone} {record.preset}, {record.provenance.get('steps', '?')} steps"
        about += "" if record.all_tasks else ", pre-trained: for spadunet_train --init"
        print(f"  {folder.relative_to(workspace.results)}  ({about})")
        if record.classifiers or len(record.tasks) > 1:
            print(f"    tasks: {', '.join([*record.tasks, *(f'{it} (classifies)' for it in record.classifiers)])}")
    print("weights that come with spadunet")
    print(f"  {BACKBONE}  (for spadunet_train --init)")
    print(f"  {TOKENIZER}  (for spadunet_pretrain_mim --tokenizer)")
    return 0


def show_corpora(folder: Path) -> None:
    """Print the corpora in a folder, if there are any."""
    from ..errors import InputError
    from ..pretraining.corpus import CORPUS_JSON, load_corpus

    found = sorted(folder.glob(f"*/{CORPUS_JSON}"))
    if found:
        print("corpora")
    for path in found:
        try:
            index = load_corpus(path.parent).index
        except InputError as error:
            print(f"  {path.parent.name}  (cannot be used: {error})")
            continue
        num_datasets = len({image.dataset for image in index.images})
        print(f"  {path.parent.name}  ({len(index.images)} images of {num_datasets} datasets)")
