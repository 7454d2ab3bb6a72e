"""What an image shows, in a fixed vocabulary: a technique, and what of it is known further.

`gray/…` and `RGB/…` are techniques whose pictures come in grey or in colour; which of both is told by the voxels.
"""

from __future__ import annotations

import difflib
import re

from ..errors import InputError

UNKNOWN = "unknown"
MODALITIES = (
    *("CT", "CT/contrast", "CBCT", "PET", "SPECT"),
    *("MRI", "MRI/T1", "MRI/T1-contrast", "MRI/T2", "MRI/T2-FLAIR", "MRI/T2-star", "MRI/PD", "MRI/SWI", "MRI/MRA"),
    *("MRI/DWI", "MRI/DTI", "MRI/ADC", "MRI/DCE", "MRI/cine", "MRI/fMRI"),
    *("MRI/T1-dual", "MRI/T1-dual/in", "MRI/T1-dual/out", "MRI/T2-SPIR"),
    *("gray", "gray/XR", "gray/US", "gray/mammography", "gray/OCT", "gray/microscopy"),
    *("RGB", "RGB/US", "RGB/fundus", "RGB/endoscopy", "RGB/dermoscopy", "RGB/histology", "RGB/microscopy"),
    UNKNOWN,
)
ALIASES = {
    "mr": "MRI",
    "mp-mri": "MRI",
    "t1": "MRI/T1",
    "t1w": "MRI/T1",
    "t1n": "MRI/T1",
    "t1ce": "MRI/T1-contrast",
    "t1c": "MRI/T1-contrast",
    "t1gd": "MRI/T1-contrast",
    "t2": "MRI/T2",
    "t2w": "MRI/T2",
    "t2s": "MRI/T2-star",
    "t2star": "MRI/T2-star",
    "flair": "MRI/T2-FLAIR",
    "t2f": "MRI/T2-FLAIR",
    "pd": "MRI/PD",
    "pdw": "MRI/PD",
    "swi": "MRI/SWI",
    "mra": "MRI/MRA",
    "dwi": "MRI/DWI",
    "dti": "MRI/DTI",
    "adc": "MRI/ADC",
    "cine": "MRI/cine",
    "bold": "MRI/fMRI",
    "fmri": "MRI/fMRI",
    "in-phase": "MRI/T1-dual/in",
    "out-phase": "MRI/T1-dual/out",
    "t2-spir": "MRI/T2-SPIR",
    "pt": "PET",
    "xr": "gray/XR",
    "xray": "gray/XR",
    "x-ray": "gray/XR",
    "cxr": "gray/XR",
    "us": "gray/US",
    "ultrasound": "gray/US",
    "oct": "gray/OCT",
    "mammography": "gray/mammography",
    "fundus": "RGB/fundus",
    "endoscopy": "RGB/endoscopy",
    "dermoscopy": "RGB/dermoscopy",
    "histology": "RGB/histology",
}
"""Words of channel names and file names."""
DICOM_MODALITIES = {
    "CT": "CT",
    "MR": "MRI",
    "PT": "PET",
    "NM": "SPECT",
    **dict.fromkeys(("CR", "DX", "XA", "RF", "RG", "PX", "IO"), "gray/XR"),
    **dict.fromkeys(("US", "IVUS"), "gray/US"),
    "MG": "gray/mammography",
    **dict.fromkeys(("OPT", "IVOCT"), "gray/OCT"),
    **dict.fromkeys(("OP", "OPM"), "RGB/fundus"),
    "ES": "RGB/endoscopy",
    "DMS": "RGB/dermoscopy",
    "SM": "RGB/histology",
    "GM": "RGB/microscopy",
}
"""By the tag Modality (DICOM PS3.3, section C.7.3.1.1.1)."""
KNOWN = {name.casefold(): name for name in MODALITIES} | ALIASES
COLOURLESS, COLOURED = "gray", "RGB"


def check_modality(name: str) -> str:
    """The name as the vocabulary writes it, of any case; a usual other word for it is understood.

    Raises:
        InputError: if it is unknown; names the nearest.
    """
    found = KNOWN.get(name.strip().casefold())
    if found is not None:
        return found
    nearest = difflib.get_close_matches(name.casefold(), list(KNOWN), n=1, cutoff=0.0)
    raise InputError(
        f"modality {name!r} is none that is known; did you mean {KNOWN[nearest[0]]!r}? (all: {', '.join(MODALITIES)})"
    )


def modality_in(text: str) -> str:
    """The most telling word of the vocabulary in a channel's or a file's name; `unknown` where there is none.

    `mr_spine_t2s` is MRI/T2-star: MRI/… tells more than MRI.
    """
    whole = KNOWN.get(text.strip().casefold())
    if whole is not None:
        return whole
    words = [word for word in re.split(r"[\W_]+", text.casefold()) if word]
    joined = [f"{first}-{second}" for first, second in zip(words[:-1], words[1:], strict=True)]
    found = [KNOWN[word] for word in (*joined, *words) if word in KNOWN and KNOWN[word] != UNKNOWN]
    return max(found, key=lambda name: name.count("/"), default=UNKNOWN)


def more_telling(modality: str, *others: str) -> str:
    """The first that is known, or another that says the same and more."""
    known = [name for name in (modality, *others) if name != UNKNOWN]
    if not known:
        return UNKNOWN
    return next((name for name in known if name.startswith(f"{known[0]}/")), known[0])


def of_colour(modality: str, num_channels: int) -> str:
    """The same technique, in grey or in colour as the stored image is."""
    technique, _, rest = modality.partition("/")
    if technique not in (COLOURLESS, COLOURED):
        return modality
    technique = COLOURED if num_channels > 1 else COLOURLESS
    return f"{technique}/{rest}" if rest else technique
