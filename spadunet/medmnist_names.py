"""Tasks and class names of the 18 datasets of MedMNIST v2, by the names of their files.

From `medmnist.INFO` (Yang et al., Scientific Data 2023; https://github.com/MedMNIST/MedMNIST).
"""

from __future__ import annotations

import re

from .classes import ClassSet

ORGANS = (
    "bladder",
    "femur-left",
    "femur-right",
    "heart",
    "kidney-left",
    "kidney-right",
    "liver",
    "lung-left",
    "lung-right",
    "pancreas",
    "spleen",
)
ORGANS_3D = (
    "liver",
    "kidney-right",
    "kidney-left",
    "femur-right",
    "femur-left",
    "bladder",
    "heart",
    "lung-right",
    "lung-left",
    "spleen",
    "pancreas",
)

CLASSES = {
    "pathmnist": ClassSet(
        kind="multi-class",
        names=(
            "adipose",
            "background",
            "debris",
            "lymphocytes",
            "mucus",
            "smooth muscle",
            "normal colon mucosa",
            "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
    ),
    "chestmnist": ClassSet(
        kind="multi-label",
        names=(
            "atelectasis",
            "cardiomegaly",
            "effusion",
            "infiltration",
            "mass",
            "nodule",
            "pneumonia",
            "pneumothorax",
            "consolidation",
            "edema",
            "emphysema",
            "fibrosis",
            "pleural",
            "hernia",
        ),
    ),
    "dermamnist": ClassSet(
        kind="multi-class",
        names=(
            "actinic keratoses and intraepithelial carcinoma",
            "basal cell carcinoma",
            "benign keratosis-like lesions",
            "dermatofibroma",
            "melanoma",
            "melanocytic nevi",
            "vascular lesions",
        ),
    ),
    "octmnist": ClassSet(
        kind="multi-class", names=("choroidal neovascularization", "diabetic macular edema", "drusen", "normal")
    ),
    "pneumoniamnist": ClassSet(kind="binary", names=("normal", "pneumonia")),
    "retinamnist": ClassSet(kind="ordinal", names=("0", "1", "2", "3", "4")),
    "breastmnist": ClassSet(kind="binary", names=("malignant", "normal, benign")),
    "bloodmnist": ClassSet(
        kind="multi-class",
        names=(
            "basophil",
            "eosinophil",
            "erythroblast",
            "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)",
            "lymphocyte",
            "monocyte",
            "neutrophil",
            "platelet",
        ),
    ),
    "tissuemnist": ClassSet(
        kind="multi-class",
        names=(
            "Collecting Duct, Connecting Tubule",
            "Distal Convoluted Tubule",
            "Glomerular endothelial cells",
            "Interstitial endothelial cells",
            "Leukocytes",
            "Podocytes",
            "Proximal Tubule Segments",
            "Thick Ascending Limb",
        ),
    ),
    "organamnist": ClassSet(kind="multi-class", names=ORGANS),
    "organcmnist": ClassSet(kind="multi-class", names=ORGANS),
    "organsmnist": ClassSet(kind="multi-class", names=ORGANS),
    "organmnist3d": ClassSet(kind="multi-class", names=ORGANS_3D),
    "nodulemnist3d": ClassSet(kind="binary", names=("benign", "malignant")),
    "adrenalmnist3d": ClassSet(kind="binary", names=("normal", "hyperplasia")),
    "fracturemnist3d": ClassSet(
        kind="multi-class", names=("buckle rib fracture", "nondisplaced rib fracture", "displaced rib fracture")
    ),
    "vesselmnist3d": ClassSet(kind="binary", names=("vessel", "aneurysm")),
    "synapsemnist3d": ClassSet(kind="binary", names=("inhibitory synapse", "excitatory synapse")),
}
"""By file stem; MedMNIST+ writes the size behind it (organmnist3d_64)."""


def known_classes(stem: str, *, is_planar: bool) -> ClassSet | None:
    """Classes of a published file of this name without its ending; None of any other file.

    Args:
        is_planar: whether the file's images are pictures; the volumes of MedMNIST have 3D in their name.
    """
    name = re.sub(r"_\d+$", "", stem.lower())
    return CLASSES.get(name) if name.endswith("3d") != is_planar else None
