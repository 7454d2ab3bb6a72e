"""Small pre-trained weights that come with spadunet; MODEL_CARD.md beside says what they were made of, and how."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
BACKBONE, TOKENIZER = "spad_unet_tiny", "tokenizer_tiny"


def find_weights(name: str) -> Path:
    """What --init or --tokenizer means: a path, else weights of that name that come with spadunet.

    A name that is neither is taken as a path, for whoever reads it to refuse.
    """
    is_known = name in (BACKBONE, TOKENIZER) and not Path(name).exists()
    return FOLDER / name if is_known else Path(name)


def is_shipped(folder: Path) -> bool:
    """Whether a folder is part of the installed package."""
    return FOLDER.resolve() in folder.resolve().parents
