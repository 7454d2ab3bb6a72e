"""Published results that protocols put beside ours, as printed: Dice in per cent."""

from __future__ import annotations

TABLE_4 = {
    "BTCV": {
        "scratch": (84.86, 1.59, 18.90),
        "swin": (81.06, 3.20, 92.33),
        "UniMiSS": (85.17, 1.01, 17.78),
        "eva02": (86.51, 0.86, 16.91),
        "ours": (87.31, 0.74, 13.12),
    },
    "CHAOS": {
        "scratch": (89.96, 2.18, 25.39),
        "swin": (85.51, 6.66, 68.02),
        "UniMiSS": (90.49, 1.91, 24.94),
        "eva02": (91.48, 1.71, 20.69),
        "ours": (92.09, 1.54, 19.85),
    },
}
"""Luo et al. 2024, Table 4: Dice, ASSD and HD; of BTCV's nine validation scans in voxels, of CHAOS's test set in mm."""
NAMES = {
    "scratch": "SPAD-ViT from scratch (TFS)",
    "swin": "Swin UNETR",
    "UniMiSS": "UniMiSS",
    "eva02": "EVA-02-B",
    "ours": "SPAD-ViT pre-trained (Ours)",
}
TABLE_5 = {
    0.2: ((70.98, 77.84), (4.96, 2.39), (51.13, 25.56)),
    0.4: ((75.11, 81.28), (4.67, 2.41), (43.85, 21.71)),
    0.6: ((80.73, 84.87), (2.74, 1.23), (31.70, 18.03)),
    0.8: ((84.73, 86.96), (1.61, 0.78), (23.78, 13.66)),
    1.0: ((84.86, 87.31), (1.59, 0.74), (18.90, 13.12)),
}
"""Luo et al. 2024, Table 5, by the share of BTCV's 21 training scans: Dice, ASSD and HD in voxels, each of a run from
scratch and a pre-trained one."""
FIVE_FOLDS = {
    "nnU-Net": 83.08,
    "nnU-Net ResEnc L": 83.35,
    "MedNeXt L k5": 85.04,
    "Swin UNETR": 78.89,
}
"""Isensee et al. 2024, nnU-Net Revisited (arXiv:2404.09556): Dice in five-fold cross-validation of BTCV's 30 scans."""
