"""What a safetensors file says of its tensors, read without its tensors.

Format: https://huggingface.co/docs/safetensors: eight bytes with the header's length, the header in JSON, the values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from ..record import Record, first_problem

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 1 << 20
"""The largest preset's 561 tensors take 73 kB."""
ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Types that weights may have."""
BF16_EXPONENT = 0x7F80
"""Its bits; all set in NaN and infinite numbers."""

Count = Annotated[int, Field(ge=0, le=2**40)]


class TensorRecord(Record):
    """One tensor of the file."""

    dtype: Literal["F64", "F32", "F16", "BF16"]
    shape: Annotated[tuple[Count, ...], Field(max_length=8)]
    data_offsets: tuple[Count, Count]
    """First byte and the one past the last, behind the header."""

    @property
    def num_bytes(self) -> int:
        """That such a tensor takes."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]

    def are_finite(self, values: bytes) -> bool:
        """True if none of some of its values is NaN or infinite."""
        if self.dtype == "BF16":  # the upper half of a float32
            exponents = np.frombuffer(values, "<u2") & BF16_EXPONENT
            return not bool((exponents == BF16_EXPONENT).any())
        return bool(np.isfinite(np.frombuffer(values, f"<f{ITEM_BYTES[self.dtype]}")).all())


HEADER = TypeAdapter(dict[str, TensorRecord | dict[str, str]])


def read_header(start: bytes, size: int) -> dict[str, TensorRecord]:
    """Tensors by name, after they were found to fill the file without gap or overlap.

    Args:
        start: the file's first bytes, at least `LENGTH_BYTES + MAX_HEADER_BYTES` of them where it has as many.
        size: of the whole file in bytes.

    Raises:
        ValueError: if it is damaged, has tensors of other types, or is no safetensors file.
    """
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    if size < LENGTH_BYTES or length > min(size - LENGTH_BYTES, MAX_HEADER_BYTES):
        raise ValueError(f"no safetensors file: its header would have {length} bytes")
    try:
        parsed = HEADER.validate_json(start[LENGTH_BYTES : LENGTH_BYTES + length])
    except ValidationError as error:
        raise ValueError(f"no safetensors file: {first_problem(error)}") from error
    parsed.pop("__metadata__", None)
    tensors = {name: tensor for name, tensor in parsed.items() if isinstance(tensor, TensorRecord)}
    if len(tensors) < len(parsed):
        raise ValueError("its header has a tensor without type and shape")
    check_places(tensors, size - LENGTH_BYTES - length)
    return tensors


def check_places(tensors: Mapping[str, TensorRecord], num_bytes: int) -> None:
    """Raise ValueError unless the tensors follow each other, as large as their shapes say, up to the last byte."""
    place = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        first, last = tensor.data_offsets
        if first != place or last - first != tensor.num_bytes:
            raise ValueError(f"tensor {name[:100]!a} lies at {first} to {last}, not at {place} with its size")
        place = last
    if place != num_bytes:
        raise ValueError(f"its tensors take {place} of {num_bytes} bytes")
