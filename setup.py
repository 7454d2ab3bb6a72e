"""Build and installation of spadunet.

The four stage folders lie at the top of the repository and are installed as
`spadunet.<folder>`, because top-level packages of such common names would
collide with others. The list and the map are literal; tests/test_packaging.py
compares them with the folders.
"""

import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent


def read_version() -> str:
    """Version in spadunet/__init__.py, read as text: importing it here would need an installed package."""
    text = (ROOT / "spadunet" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, flags=re.MULTILINE)
    if match is None:
        raise ValueError('spadunet/__init__.py: expected a line __version__ = "..."')
    return match.group(1)


def read_readme() -> str:
    """Text of README.md, or nothing where it is left out of the tree, as in a container's first layer."""
    path = ROOT / "README.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


setup(
    name="spadunet",
    version=read_version(),
    description="Medical image segmentation with spatially adaptive networks: one set of weights for every spacing",
    long_description=read_readme(),
    long_description_content_type="text/markdown",
    author="The spadunet developers",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=[
        "spadunet",
        "spadunet.classification",
        "spadunet.cli",
        "spadunet.demo",
        "spadunet.network",
        "spadunet.pretrained",
        "spadunet.pretraining",
        "spadunet.sharing",
        "spadunet.training",
        "spadunet.plans",
        "spadunet.preprocessing",
        "spadunet.preprocessing.converters",
        "spadunet.inference",
        "spadunet.evaluation",
        "spadunet.evaluation.compare",
        "spadunet.evaluation.protocols",
    ],
    package_dir={
        "spadunet": "spadunet",
        "spadunet.plans": "plans",
        "spadunet.preprocessing": "preprocessing",
        "spadunet.inference": "inference",
        "spadunet.evaluation": "evaluation",
    },
    package_data={
        "spadunet": ["py.typed"],
        "spadunet.pretrained": ["*.md", "*.csv", "*/*.json", "*/*.safetensors"],
        "spadunet.pretraining": ["paper_datasets.json"],
        "spadunet.evaluation": ["report.js"],
        "spadunet.demo": [
            "data/**/*.nii.gz",
            "data/**/*.json",
            "data/**/*.txt",
            "data/**/*.md",
            "data/**/LICENSE*",
            "data/**/CITATION*",
        ],
    },
    include_package_data=False,
    install_requires=[
        "torch>=2.6,!=2.9.*",  # 3D convolutions are slow in 2.9
        "monai>=1.4",
        "SimpleITK>=2.3",
        "batchgeneratorsv2>=0.2",
        "connected-components-3d>=3.12",
        "scikit-image>=0.22",  # skeletons; batchgenerators brings it, too
        "scipy>=1.12",
        "numpy>=1.24",
        "tqdm>=4.64",
        "psutil>=5.9",
        "safetensors>=0.4",
        "blosc2>=2.5",
        "pydantic>=2.12",
        "matplotlib>=3.7",
        "contourpy>=1.0.1",  # this and pillow come with matplotlib
        "pillow>=9.1",
        "tensorboard>=2.14",
    ],
    extras_require={
        "cluster": ["distributed>=2024.1"],  # --dask
        "dicom": ["highdicom>=0.28", "pydicom>=3.0.1"],  # label maps as DICOM SEG
        # lesion_f1 and panoptic_quality; it wants numpy<2.3, which constraints.txt is above.
        "lesions": ["panoptica>=2.1"],
        "onnx": ["onnx>=1.18", "onnxruntime>=1.20", "onnxscript>=0.5"],  # spadunet_export_onnx
        # The tests compare our metrics with these, the package never imports them: MedPy is GPL-3. And with medmnist,
        # which is not here since it wants torchvision: `make` installs it alone.
        "oracle": ["medpy>=0.5", "surface-distance>=0.1"],
        "dev": [
            "build>=1.2",
            "distributed>=2024.1",
            "einops>=0.7",  # benchmarks: MONAI's Swin UNETR
            "highdicom>=0.28",
            "medpy>=0.5",
            "mypy>=1.11",
            "nibabel>=5.2",
            "onnx>=1.18",
            "onnxruntime>=1.20",
            "onnxscript>=0.5",
            "pre-commit>=3.5",
            "pydicom>=3.0.1",
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.5",
            "ruff>=0.6",
            "selenium>=4.11",  # the report in a browser
            "setuptools>=64",
            "surface-distance>=0.1",
            "wheel",
        ],
    },
    entry_points={
        "console_scripts": [
            "spadunet_demo = spadunet.cli.demo:main",
            "spadunet_convert_btcv = spadunet.cli.convert_btcv:main",
            "spadunet_convert_chaos = spadunet.cli.convert_chaos:main",
            "spadunet_convert_msd = spadunet.cli.convert_msd:main",
            "spadunet_check = spadunet.cli.check:main",
            "spadunet_fingerprint = spadunet.cli.fingerprint:main",
            "spadunet_plan = spadunet.cli.plan:main",
            "spadunet_preprocess = spadunet.cli.preprocess:main",
            "spadunet_plan_and_preprocess = spadunet.cli.plan_and_preprocess:main",
            "spadunet_pretrain_mim = spadunet.cli.pretrain_mim:main",
            "spadunet_train = spadunet.cli.train:main",
            "spadunet_predict = spadunet.cli.predict:main",
            "spadunet_postprocess = spadunet.cli.postprocess:main",
            "spadunet_quality = spadunet.cli.quality:main",
            "spadunet_evaluate = spadunet.cli.evaluate:main",
            "spadunet_compare = spadunet.cli.compare:main",
            "spadunet_export_chaos = spadunet.cli.export_chaos:main",
            "spadunet_export_model = spadunet.cli.export_model:main",
            "spadunet_export_onnx = spadunet.cli.export_onnx:main",
            "spadunet_import_model = spadunet.cli.import_model:main",
            "spadunet_tasks = spadunet.cli.tasks:main",
            "spadunet_pretrain_tokenizer = spadunet.cli.pretrain_tokenizer:main",
            "spadunet_index = spadunet.cli.index:main",
            "spadunet_runs = spadunet.cli.runs:main",
            "spadunet_info = spadunet.cli.info:main",
        ],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Healthcare Industry",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
        "Typing :: Typed",
    ],
)
