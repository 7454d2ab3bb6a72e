"""Files that mean harm, or are damaged: each is refused for its own reason, and nothing is written."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from small_model import TASKS, saved_model, shrink_presets

from spadunet.errors import InputError
from spadunet.sharing.archive import MAX_FILES
from spadunet.sharing.exporting import export_model
from spadunet.sharing.importing import import_model

Contents = dict[str, bytes]
WEIGHTS, TASK = "backbone.safetensors", f"tasks/{TASKS[0]}/task.json"
TASK_WEIGHTS = f"tasks/{TASKS[0]}/task.safetensors"
LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A sound file."""
    folder = tmp_path_factory.mktemp("good")
    with pytest.MonkeyPatch.context() as monkeypatch:
        shrink_presets(monkeypatch)
        export_model(saved_model(folder / "model"), folder / "model.zip", "# Card\n")
    return (folder / "model.zip").read_bytes()


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes, str], None]:
    """Import some bytes; they must be refused in these words, on one line, without a trace on the disk."""
    shrink_presets(monkeypatch)

    def check(data: bytes, message: str) -> None:
        path = tmp_path / "evil.zip"
        path.write_bytes(data)
        with pytest.raises(InputError, match=message) as caught:
            import_model(path, tmp_path / "results/imported")
        assert str(path) in str(caught.value)
        assert str(caught.value).isprintable()
        assert list(tmp_path.iterdir()) == [path]

    return check


def unpack(data: bytes) -> Contents:
    """Files by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(contents: Contents, change: Callable[[zipfile.ZipInfo], object] = lambda info: None) -> bytes:
    """A zip file as an attacker's own tool writes it, with some files' properties changed."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in contents.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            change(info)
            archive.writestr(info, content)
    return target.getvalue()


def listed(contents: Contents) -> Contents:
    """The same with a manifest that fits, as an attacker makes it."""
    manifest = json.loads(contents["manifest.json"])
    rest = {name: content for name, content in contents.items() if name != "manifest.json"}
    manifest["files"] = {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in rest.items()
    }
    return {"manifest.json": json.dumps(manifest).encode(), **rest}


def agreed(contents: Contents) -> Contents:
    """With hashes in model.json that fit, too."""
    model = json.loads(contents["model.json"])
    model["sha256"] = {name: hashlib.sha256(contents[name]).hexdigest() for name in model["sha256"]}
    return listed(contents | {"model.json": json.dumps(model).encode()})


def edited(contents: Contents, name: str, change: Callable[[dict], object]) -> Contents:
    """With a JSON document changed."""
    content = json.loads(contents[name])
    change(content)
    return contents | {name: json.dumps(content).encode()}


def renamed(contents: Contents, old: str, new: str) -> Contents:
    """With another name for a file."""
    return {new if name == old else name: content for name, content in contents.items()}


def test_the_tools_of_these_tests_leave_a_sound_file_sound(good: bytes, tmp_path: Path, monkeypatch):
    shrink_presets(monkeypatch)
    (tmp_path / "good.zip").write_bytes(pack(agreed(unpack(good))))
    import_model(tmp_path / "good.zip", tmp_path / "imported")
    assert (tmp_path / "imported/model.json").is_file()


# --- the zip file itself


def flip(data: bytes, place: int) -> bytes:
    """With one bit changed."""
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def header_of(data: bytes, kind: bytes, name: str) -> int:
    """Where a file's local or central header begins."""
    length = 30 if kind == LOCAL else 46
    return next(
        place
        for place in range(len(data))
        if data.startswith(kind, place) and data.startswith(name.encode(), place + length)
    )


def patched(data: bytes, kind: bytes, name: str, offset: int, value: bytes) -> bytes:
    """With some bytes of a header changed."""
    place = header_of(data, kind, name) + offset
    return data[:place] + value + data[place + len(value) :]


def with_end(data: bytes, offset: int, value: bytes) -> bytes:
    """With some bytes of the record at the end changed."""
    place = len(data) - 22 + offset
    return data[:place] + value + data[place + len(value) :]


def with_gap(data: bytes) -> bytes:
    """With some bytes between the files and their list."""
    start = struct.unpack("<L", data[-6:-2])[0]
    hidden = b"hidden bytes"
    return with_end(data[:start] + hidden + data[start:], 16, struct.pack("<L", start + len(hidden)))


def with_zip64(data: bytes) -> bytes:
    """With the extensions' records, which say something else than the one at the end."""
    size, start = struct.unpack("<LL", data[-10:-2])
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 0, 0, 0, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, start + size, 1)
    return data[:-22] + record + locator + data[-22:]


def bomb(contents: Contents) -> bytes:
    """A document that unpacks from 50 kB to 50 MB."""
    zeros = b"{" + b" " * 50_000_000 + b"}"

    def deflate(info: zipfile.ZipInfo) -> None:
        info.compress_type = zipfile.ZIP_DEFLATED if info.filename == TASK else zipfile.ZIP_STORED

    return pack(listed(contents | {TASK: zeros}), deflate)


def attribute(name: str, value: int) -> Callable[[zipfile.ZipInfo], None]:
    """Sets a file's attributes."""

    def change(info: zipfile.ZipInfo) -> None:
        if info.filename == name:
            info.external_attr = value

    return change


def overlapping(data: bytes) -> bytes:
    """Two names for the same bytes."""
    first = header_of(data, LOCAL, WEIGHTS)
    return patched(data, CENTRAL, TASK, 42, struct.pack("<L", first))


ZIP_FILES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "it is no zip file"),
    "a text": (lambda data: b"no model" * 100, "it is no zip file"),
    "half of it": (lambda data: data[: len(data) // 2], "it is no zip file"),
    "a pickle": (lambda data: pickle.dumps({"state_dict": {}}), "it is no zip file"),
    "bytes before": (lambda data: b"#!/bin/sh\nevil\n" + data, "something lies before or behind its files"),
    "bytes behind": (lambda data: data + b"more", "it is no zip file, or something follows it"),
    "a comment": (lambda data: with_end(data, 20, b"\x04\x00") + b"more", "it is no zip file, or something follows it"),
    "bytes between": (with_gap, "something lies between its files and their list"),
    "a second list by zip64": (with_zip64, "of a kind that models do not need"),
    "several disks": (lambda data: with_end(data, 4, b"\x01\x00"), "of a kind that models do not need"),
    "a million files": (lambda data: with_end(data, 8, b"\xff\xff\xff\xff"), "it lists 65535 files"),
    "a huge list": (lambda data: with_end(data, 12, b"\xff\xff\xff\x7f"), "more than 512 files"),
    "a wrong number of files": (lambda data: with_end(data, 8, b"\x05\x00\x05\x00"), "lists 8 files and says 5"),
    "a damaged list": (lambda data: patched(data, CENTRAL, TASK, 0, b"XX"), "its list of files is damaged"),
    "encrypted": (lambda data: patched(data, CENTRAL, WEIGHTS, 8, b"\x01\x00"), "is encrypted"),
    "a size after the content": (lambda data: patched(data, CENTRAL, WEIGHTS, 8, b"\x08\x00"), "properties that"),
    "a size that is a lie": (
        lambda data: patched(data, CENTRAL, WEIGHTS, 20, struct.pack("<LL", 10**9, 10**9)),
        "overlaps with others or lies apart|described in two ways",
    ),
    "packed to 4 GB": (
        lambda data: patched(data, CENTRAL, WEIGHTS, 24, struct.pack("<L", 2**32 - 1)),
        "is packed, and would unpack|damaged",
    ),
    "two files on the same bytes": (overlapping, "overlaps with others or lies apart"),
    "two descriptions": (lambda data: patched(data, LOCAL, WEIGHTS, 14, b"\0\0\0\0"), "is described in two ways"),
    "two names": (lambda data: patched(data, LOCAL, TASK, 30, b"../.."), "is described in two ways"),
    "a DOS folder": (lambda data: patched(data, CENTRAL, WEIGHTS, 38, b"\x10\0\0\0"), "is a link, a folder or"),
    "NUL in a name": (lambda data: patched(data, CENTRAL, TASK, 46, b"tasks\0"), "is not a plain one|damaged"),
}


@pytest.mark.parametrize("kind", ZIP_FILES)
def test_a_zip_file_that_is_not_as_it_should_be(kind: str, good: bytes, refused):
    spoil, message = ZIP_FILES[kind]
    assert spoil(good) != good
    refused(spoil(good), message)


PACKED: dict[str, tuple[Callable[[Contents], bytes], str]] = {
    "a bomb": (bomb, "is packed, and would unpack from 4.... to 50000002 bytes"),
    "a link": (lambda files: pack(files, attribute(TASK, (stat.S_IFLNK | 0o777) << 16)), "is a link, a folder or a"),
    "a device": (lambda files: pack(files, attribute(TASK, (stat.S_IFCHR | 0o666) << 16)), "is a link, a folder or a"),
    "a pipe": (lambda files: pack(files, attribute(TASK, (stat.S_IFIFO | 0o666) << 16)), "is a link, a folder or a"),
    "a folder": (lambda files: pack(listed(files | {"tasks/": b""})), "'tasks/' is a folder"),
    "extra data": (lambda files: pack(files, lambda info: setattr(info, "extra", b"\1\0\4\0evil")), "properties that"),
    "a file's comment": (lambda files: pack(files, lambda info: setattr(info, "comment", b"evil")), "properties that"),
    "too many files": (
        lambda files: pack(listed(files | {f"tasks/{number}/task.json": b"{}" for number in range(MAX_FILES)})),
        f"more than {MAX_FILES} files",
    ),
}


@pytest.mark.parametrize("kind", PACKED)
def test_files_in_it_that_are_no_plain_stored_files(kind: str, good: bytes, refused):
    make, message = PACKED[kind]
    refused(make(unpack(good)), message)


@pytest.mark.parametrize(
    "name",
    [
        "../evil.json",
        "tasks/../../evil.json",
        "tasks/./evil.json",
        "tasks//evil.json",
        "/etc/evil.json",
        "C:evil.json",
        "C:/evil.json",
        "tasks\\..\\evil.json",
        ".ssh/evil.json",
        "tasks/evil.json ",
        "tasks/evil.json.",
        "tasks/evil\n.json",
        "tasks/\x1b[2Jevil.json",
        "tasks/\u202enosj.live",
        "e" * 300,
        "CON",
        "tasks/nul/task.json",
        "aux.json",
        "Com1.tar.json",
        "lpt² .json",
    ],
)
def test_a_name_that_is_not_plain(name: str, good: bytes, refused):
    refused(pack(listed(unpack(good) | {name: b"{}"})), r"is not a plain one inside the model's folder")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("twin", [WEIGHTS, "Backbone.SafeTensors", "\uff42ackbone.safetensors"])
def test_two_names_for_one_file(twin: str, good: bytes, refused):
    contents = listed(unpack(good))
    target = io.BytesIO(pack(contents))
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr(zipfile.ZipInfo(twin), b"other")
    refused(target.getvalue(), "is there twice, or differs from another name only in its spelling")


# --- what is in it


def tensors(entries: dict[str, object], data: bytes) -> bytes:
    """A safetensors file with any header."""
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + data


def reshaped(contents: Contents) -> bytes:
    """The backbone with one tensor of another shape, as large as before."""
    content = contents[WEIGHTS]
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    name = next(name for name, tensor in header.items() if len(tensor["shape"]) == 5)
    header[name]["shape"] = header[name]["shape"][::-1]
    header[name]["shape"][0], header[name]["shape"][-1] = 1, header[name]["shape"][0] * header[name]["shape"][-1]
    return tensors(header, content[8 + length :])


def one(shape: list[int], first: int, last: int, dtype: str = "F32") -> dict[str, object]:
    """A tensor's entry."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


def saved_by_torch() -> bytes:
    """What `torch.save` writes."""
    target = io.BytesIO()
    torch.save({"weight": torch.ones(2)}, target)
    return target.getvalue()


BAD_WEIGHTS: dict[str, tuple[Callable[[Contents], bytes], str]] = {
    "a pickle": (lambda files: pickle.dumps([1, 2]), "may run code when it is loaded"),
    "an old pickle": (lambda files: pickle.dumps({"a": 1}, protocol=0), "no safetensors file"),
    "by torch.save": (lambda files: saved_by_torch(), "may run code when it is loaded"),
    "by NumPy": (lambda files: b"\x93NUMPY\x01\x00" + b" " * 100, "may run code when it is loaded"),
    "empty": (lambda files: b"", "no safetensors file"),
    "a huge header": (
        lambda files: struct.pack("<Q", 2**63) + b"{}",
        "its header would have 9223372036854775808 bytes",
    ),
    "a header beyond its end": (lambda files: struct.pack("<Q", 100) + b"{}", "its header would have 100 bytes"),
    "a header that is no JSON": (lambda files: struct.pack("<Q", 8) + b"not JSON", "no safetensors file"),
    "a header without end": (lambda files: struct.pack("<Q", 90_000) + b"[" * 90_000, "recursion limit|no safetensors"),
    "overlapping tensors": (
        lambda files: tensors({"a": one([2], 0, 8), "b": one([2], 4, 12)}, bytes(12)),
        "tensor 'b' lies at 4 to 12, not at 8",
    ),
    "a gap": (lambda files: tensors({"a": one([2], 4, 12)}, bytes(12)), "tensor 'a' lies at 4 to 12, not at 0"),
    "bytes behind": (lambda files: tensors({"a": one([2], 0, 8)}, bytes(12)), "take 8 of 12 bytes"),
    "a tensor beyond the end": (lambda files: tensors({"a": one([9], 0, 36)}, bytes(12)), "take 36 of 12 bytes"),
    "a shape that overflows": (
        lambda files: tensors({"a": one([2**32, 2**32], 0, 0)}, b""),
        "tensor 'a' lies at 0 to 0, not at 0 with its size",
    ),
    "a negative offset": (lambda files: tensors({"a": one([2], -8, 0)}, bytes(8)), "no safetensors file"),
    "an unknown type": (lambda files: tensors({"a": one([2], 0, 16, "I64")}, bytes(16)), "no safetensors file"),
    "another shape": (reshaped, "the backbone: tensor .* has the shape"),
    "other tensors": (lambda files: tensors({"a": one([2], 0, 8)}, bytes(8)), "the backbone lacks tensors"),
    "those of a task": (lambda files: files[TASK_WEIGHTS], "the backbone lacks tensors"),
}


@pytest.mark.parametrize("kind", BAD_WEIGHTS)
def test_weights_that_are_none_though_all_hashes_fit(kind: str, good: bytes, refused):
    make, message = BAD_WEIGHTS[kind]
    contents = unpack(good)
    refused(pack(agreed(contents | {WEIGHTS: make(contents)})), message)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_weights_that_are_no_finite_numbers(dtype: torch.dtype, value: float, good: bytes, refused):
    contents = unpack(good)
    state = {name: tensor.to(dtype) for name, tensor in safetensors.torch.load(contents[TASK_WEIGHTS]).items()}
    state["heads.0.weight"].view(-1)[-1] = value
    evil = contents | {TASK_WEIGHTS: safetensors.torch.save(state)}
    refused(pack(agreed(evil)), "task.safetensors: tensor 'heads.0.weight' holds NaN or infinite values")


def deep(num_levels: int) -> bytes:
    """JSON in JSON in JSON."""
    return b'{"a":' * num_levels + b"1" + b"}" * num_levels


def set_task_plan(key: str, value: object) -> Callable[[Contents], Contents]:
    """With one field of a task's plan changed."""
    return lambda files: agreed(edited(files, TASK, lambda task: task["plan"].update({key: value})))


DOCUMENTS: dict[str, tuple[Callable[[Contents], Contents], str]] = {
    "a byte of the weights": (lambda files: files | {WEIGHTS: flip(files[WEIGHTS], -5)}, "size and SHA-256 that its"),
    "a byte of the plan": (lambda files: files | {TASK: flip(files[TASK], 50)}, "size and SHA-256 that its manifest"),
    "a shorter card": (lambda files: files | {"MODEL_CARD.md": b"#"}, "MODEL_CARD.md does not have the size"),
    "a hash of model.json alone": (
        lambda files: listed(files | {WEIGHTS: files[WEIGHTS][:-1] + b"\1"}),
        "has another SHA-256 in model.json than in manifest.json",
    ),
    "no manifest": (lambda files: {n: c for n, c in files.items() if n != "manifest.json"}, "it has no manifest.json"),
    "a file beside the manifest": (lambda files: files | {"run.json": b"{}"}, "run.json is not in its manifest"),
    "a file of no model": (lambda files: listed(files | {"run.json": b"{}"}), "its files are not those of a model"),
    "a program": (
        lambda files: listed(files | {"setup.py": b"evil()"}),
        "setup.py is too large, or no file of a model",
    ),
    "a file that is missing": (
        lambda files: {n: c for n, c in files.items() if n != TASK_WEIGHTS},
        "task.safetensors' is missing",
    ),
    "a task's file that nobody lists": (
        lambda files: listed({n: c for n, c in files.items() if n != TASK_WEIGHTS}),
        "its files are not those of a model with the tasks",
    ),
    "no card": (lambda files: listed({n: c for n, c in files.items() if n != "MODEL_CARD.md"}), "is missing"),
    "weights.pt": (lambda files: listed(files | {"weights.pt": b"x"}), "weights.pt may run code when it is loaded"),
    "weights.PKL": (lambda files: listed(files | {"weights.PKL": b"x"}), "weights.PKL may run code when it is loaded"),
    "pytorch_model.bin": (
        lambda files: listed(renamed(files, WEIGHTS, "pytorch_model.bin")),
        "'backbone.safetensors' is missing|may run code",
    ),
    "a pickle as a document": (
        lambda files: listed(files | {"model.json": pickle.dumps({})}),
        "model.json may run code when it is loaded",
    ),
    "a newer manifest": (
        lambda files: edited(files, "manifest.json", lambda it: it.update(format_version=2, new="field")),
        "manifest.json: format version 2 is newer than 1.*update spadunet",
    ),
    "a newer model": (
        lambda files: listed(edited(files, "model.json", lambda it: it.update(format_version=7))),
        "model.json: format version 7 is newer than 1.*update spadunet",
    ),
    "a newer task": (
        lambda files: agreed(edited(files, TASK, lambda it: it.update(format_version=3))),
        "task.json: format version 3 is newer than 1.*update spadunet",
    ),
    "another kind": (
        lambda files: edited(files, "manifest.json", lambda it: it.update(kind="program")),
        "manifest.json: field 'kind'",
    ),
    "an unknown field": (
        lambda files: edited(files, "manifest.json", lambda it: it.update(run="evil")),
        "manifest.json: field 'run'",
    ),
    "a size below zero": (
        lambda files: edited(files, "manifest.json", lambda it: it["files"][WEIGHTS].update(size=-1)),
        "manifest.json: field 'files.backbone.safetensors.size'",
    ),
    "JSON too large": (lambda files: agreed(files | {TASK: files[TASK] + b" " * 300_000}), "is too large"),
    "a manifest too large": (
        lambda files: files | {"manifest.json": files["manifest.json"] + b" " * 300_000},
        "manifest.json has 30.... bytes, more than",
    ),
    "JSON too deep": (lambda files: agreed(files | {TASK: deep(40_000)}), "recursion limit exceeded"),
    "a manifest too deep": (lambda files: files | {"manifest.json": deep(40_000)}, "recursion limit exceeded"),
    "NaN": (set_task_plan("memory_gb", float("nan")), "field 'plan.memory_gb': Input should be a finite"),
    "infinity": (set_task_plan("target_spacing_mm", [1, 1, float("inf")]), "target_spacing_mm"),
    "a patch without end": (
        set_task_plan("patch_sizes_voxels", {n: [9**9] * 3 for n in range(7)}),
        "a patch has at most",
    ),
    "a channel too many": (
        lambda files: agreed(
            edited(
                files,
                TASK,
                lambda it: it["plan"].update(
                    channel_names=["a", "b", "c"], intensity=[*it["plan"]["intensity"], it["plan"]["intensity"][0]]
                ),
            )
        ),
        "tensor channel_map.weight has the shape",
    ),
    "an unknown network": (
        lambda files: listed(edited(files, "model.json", lambda it: it.update(backbone="evil_net"))),
        "a network evil_net tiny, of which 'evil_net' is not known here: update spadunet",
    ),
    "an unknown preset": (
        lambda files: listed(edited(files, "model.json", lambda it: it.update(preset="huge"))),
        "a network spad_unet huge, of which 'huge' is not known here: update spadunet",
    ),
    "a task that leads out": (
        lambda files: listed(edited(files, "model.json", lambda it: it.update(tasks=["../.."]))),
        "tasks and classifiers: expected names of folders",
    ),
    "a task under another's name": (
        lambda files: agreed(edited(files, TASK, lambda it: it.update(name="other"))),
        "its tasks have other names than their folders",
    ),
    "a terminal's escape codes": (
        lambda files: listed(edited(files, "model.json", lambda it: it["provenance"].update(steps="\x1b]0;evil\x07"))),
        "model.json holds control characters",
    ),
    "escape codes in the card": (
        lambda files: listed(files | {"MODEL_CARD.md": b"\x1b[2J"}),
        "MODEL_CARD.md holds control characters",
    ),
    "a card in another encoding": (
        lambda files: listed(files | {"MODEL_CARD.md": "é".encode("latin-1")}),
        "MODEL_CARD.md is no text in UTF-8",
    ),
}


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_documents_that_do_not_fit(kind: str, good: bytes, refused):
    spoil, message = DOCUMENTS[kind]
    contents = unpack(good)
    spoilt = spoil(contents)
    assert spoilt != contents
    refused(pack(spoilt), message)


def test_a_file_that_is_not_there_or_a_folder(tmp_path: Path):
    for path in (tmp_path / "none.zip", tmp_path):
        with pytest.raises(InputError, match="cannot be read .*; give a file of spadunet_export_model"):
            import_model(path, tmp_path / "imported")


def test_any_bit_that_flips_in_the_files_or_what_stands_before_them_is_found(
    good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shrink_presets(monkeypatch)
    end = struct.unpack("<L", good[-6:-2])[0]
    for place in [*range(60), *range(0, end, end // 150)]:
        (tmp_path / "evil.zip").write_bytes(flip(good, place))
        with pytest.raises(InputError):
            import_model(tmp_path / "evil.zip", tmp_path / "imported")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.zip"]
