"""Weights that a run starts from: what is taken over is that of the file, what is not stays fresh, and all is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from eva02_file import random_file
from torch import Tensor, nn

from spadunet.errors import InputError
from spadunet.fingerprint import CaseFacts, Fingerprint, IntensityFacts
from spadunet.labels import LabelSet, Region
from spadunet.model import Model, save_model
from spadunet.network.build import VIT_PRESETS, ViTSize, build_backbone, build_task, build_vit
from spadunet.network.scale import normed_weights, sizes_of
from spadunet.network.vit import resize_positions
from spadunet.plan import Plan
from spadunet.plans.planner import make_plan
from spadunet.task import Task
from spadunet.training.asked import runs_behind
from spadunet.training.eva02 import read_eva02
from spadunet.training.heads import match_heads
from spadunet.training.init import Coverage, InitKind, kind_of, start_from
from spadunet.training.loop import JointNetwork

UNET, VIT = InitKind(backbone="spad_unet", preset="tiny"), InitKind(backbone="spad_vit", preset="tiny")
NAMES = ("Dataset001_A", "Dataset002_B")
FACTS = IntensityFacts(percentile_00_5=0, percentile_50=50, percentile_99_5=100, mean=50, std=20)
CASE = CaseFacts(name="a", spacing_mm=(1.0, 1.0, 1.0), shape=(12, 24, 24))
TINY_PLAN = make_plan(
    Fingerprint(dataset_name="any", source_digest="0", cases=(CASE,), intensities=(FACTS,)),
    ("MRI",),
    LabelSet(names=("background", "organ"), ids=(0, 1)),
)


def with_labels(plan: Plan, *names: str, regions: bool = False) -> Plan:
    """The same plan with other classes, or with a region of each."""
    ids = tuple(range(len(names) + 1))
    parts = [Region(name=name, ids=(number,), painted_id=number) for number, name in enumerate(names, start=1)]
    labels = LabelSet(names=("background", *names), ids=ids, regions=tuple(parts) if regions else ())
    return plan.model_copy(update={"labels": labels})


@pytest.fixture
def plans(make_task) -> dict[str, Plan]:
    """Two datasets with two and three classes, none of which but background has a name in both."""
    plans = {name: make_task(name, num_classes=number).plan for name, number in zip(NAMES, (2, 3), strict=True)}
    return plans | {NAMES[1]: with_labels(plans[NAMES[1]], "part1", "part2")}


def build(plans: dict[str, Plan], kind: InitKind, seed: int) -> JointNetwork:
    """A fresh network."""
    torch.manual_seed(seed)
    tasks = [build_task(len(p.channel_names), p.labels.num_outputs, kind.backbone, kind.preset) for p in plans.values()]
    return JointNetwork(build_backbone(kind.backbone, kind.preset), tasks)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a model folder."""

    def save(
        kind: InitKind, state: dict[str, Tensor], tasks: dict[str, Task] | None = None, *, name: str = "source"
    ) -> Path:
        model = Model(
            backbone=kind.backbone, preset=kind.preset, backbone_state=state, tasks=tasks or {}, provenance={}
        )
        save_model(tmp_path / name, model)
        return tmp_path / name

    return save


def copy_of(module: nn.Module) -> dict[str, Tensor]:
    """The tensors as they are now."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def groups_of(coverage: Coverage, fate: str) -> set[str]:
    """Parts of the network that fared so."""
    return {row.group for row in coverage.rows if row.fate == fate}


@pytest.mark.parametrize("kind", [UNET, VIT], ids=["unet", "vit"])
def test_a_model_gives_its_backbone_and_the_tasks_of_the_same_name(plans, write, kind: InitKind):
    source = build({NAMES[0]: plans[NAMES[0]]}, kind, seed=1)
    task = Task(plan=plans[NAMES[0]], state=source.tasks[0].state_dict())
    folder = write(kind, source.backbone.state_dict(), {NAMES[0]: task})
    network = build(plans, kind, seed=2)
    fresh = copy_of(network)
    coverage = start_from(network, plans, folder, kind=kind, keeps_sizes=True)
    for name, value in network.state_dict().items():
        known = name.replace("tasks.1.channel_map", "tasks.0.channel_map")  # of the same name, MRI
        expected = fresh[name] if known.startswith("tasks.1.") else source.state_dict()[known]
        assert torch.equal(value, expected), name
    assert groups_of(coverage, "new") == {f"{NAMES[1]} heads"}
    maps = {f"{name} channel_map" for name in NAMES}
    assert {*maps, f"{NAMES[0]} heads", "decoder"} <= groups_of(coverage, "loaded")
    assert sum(row.num_tensors for row in coverage.rows) == len(fresh)
    assert sum(row.num_parameters for row in coverage.rows) == sum(value.numel() for value in fresh.values())


@pytest.mark.parametrize(
    ("kind", "prefix", "num_groups"),
    # A stem, six levels of which the finest has no block, and the downs; tokens, positions, patches, norm, six blocks.
    [(UNET, "encoder.", 1 + 5 + 1), (VIT, "vit.", 4 + 6)],
    ids=["unet", "vit"],
)
def test_a_pretrained_backbone_gives_what_it_has_and_the_rest_stays_fresh(plans, write, kind, prefix, num_groups):
    source = build_backbone(kind.backbone, kind.preset).state_dict()
    pretrained = {name: value for name, value in source.items() if name.startswith(prefix)}
    network = build(plans, kind, seed=2)
    fresh = copy_of(network)
    coverage = start_from(network, plans, write(kind, pretrained), kind=kind, keeps_sizes=True)
    for name, value in network.state_dict().items():
        loaded = pretrained.get(name.removeprefix("backbone."))
        assert torch.equal(value, fresh[name] if loaded is None else loaded), name
    loaded_rows = [row for row in coverage.rows if row.fate == "loaded"]
    assert len(loaded_rows) == num_groups
    assert all(row.group.startswith(prefix) for row in loaded_rows)
    assert "decoder" in groups_of(coverage, "new")
    num_loaded = sum(value.numel() for value in pretrained.values())
    assert sum(row.num_parameters for row in loaded_rows) == num_loaded
    assert sum(row.num_tensors for row in loaded_rows) == len(pretrained)
    total = sum(value.numel() for value in fresh.values())
    share = 100 * num_loaded / total
    assert coverage.lines()[-1] == f"of {total:,} parameters: {share:.1f} % loaded, {100 - share:.1f} % new"
    assert Coverage.from_json(coverage.to_json()) == coverage


@pytest.mark.parametrize("kind", [UNET, VIT])
def test_loaded_weights_before_a_norm_are_no_larger_than_fresh_ones_and_the_network_computes_the_same(
    plans, write, kind, caplog
):
    caplog.set_level("INFO")
    source = build(plans, kind, seed=1)
    small = next(name for name, _ in normed_weights(source.backbone))
    for name, weight in normed_weights(source.backbone):
        weight.data.mul_(0.5 if name == small else 5)
    folder = write(kind, source.backbone.state_dict())
    network = build(plans, kind, seed=2)
    fresh = sizes_of(network.backbone)
    start_from(network, plans, folder, kind=kind)
    assert len(fresh) > 3
    fresh[small] = sizes_of(source.backbone)[small]
    assert sizes_of(network.backbone) == pytest.approx(fresh, rel=1e-5)
    assert "times larger than fresh ones; scaled down" in caplog.text
    x = torch.rand(1, 3, 4, 20, 24)
    with torch.no_grad():
        for ours, theirs in zip(network.backbone(x, 2), source.backbone(x, 2), strict=True):
            assert (ours - theirs).norm() < 0.01 * theirs.norm()  # the norms' epsilon
    untouched = {name for name, _ in normed_weights(network.backbone)}
    own = source.backbone.state_dict()
    state = network.backbone.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in state.items() if name not in untouched)


def test_positions_of_another_grid_are_resized_and_told(plans, write):
    source = build_backbone("spad_vit", "tiny").state_dict()
    state = {"vit.pos_embed": torch.randn(1, 192, 2, 12, 8), "vit.cls_token": source["vit.cls_token"]}
    network = build(plans, VIT, seed=2)
    coverage = start_from(network, plans, write(VIT, state), kind=VIT)
    assert torch.equal(network.backbone.vit.pos_embed, resize_positions(state["vit.pos_embed"], (5, 10, 10)))
    assert groups_of(coverage, "resized") == {"vit.pos_embed"}
    assert groups_of(coverage, "loaded") == {"vit.cls_token"}
    assert coverage.share("resized") == 192 * 500 / sum(value.numel() for value in network.state_dict().values())


def test_what_an_added_task_had_learned_from_is_behind_those_that_begin_as_it(plans, write):
    """Its own provenance tells, not that of the model; not where nothing of it is taken over."""
    source = build(plans, UNET, seed=1)
    told = {"datasets": NAMES[1], "fold": "1", "cases": "those of fold 1"}
    tasks = {
        name: Task(plan=plan, state=task.state_dict(), provenance=told if name == NAMES[1] else {})
        for (name, plan), task in zip(plans.items(), source.tasks, strict=True)
    }
    folder = write(UNET, source.backbone.state_dict(), tasks)
    for name, expected in ((NAMES[0], ()), (NAMES[1], runs_behind(told))):
        own = {name: plans[name]}
        assert start_from(build(own, UNET, seed=2), own, folder, kind=UNET).earlier_runs == expected
        twin = start_from(build(own, UNET, seed=2), own, folder, kind=UNET, scratch_twin=True)
        assert twin.earlier_runs == ()


def test_a_scratch_twin_stays_fresh_bit_for_bit_and_its_table_says_so(plans, write):
    pretrained = {f"vit.{k}": v for k, v in build_backbone("spad_vit", "tiny").vit.state_dict().items()}
    folder = write(VIT, pretrained)
    network, twin = build(plans, VIT, seed=3), build(plans, VIT, seed=3)
    coverage = start_from(network, plans, folder, kind=VIT)
    fresh = copy_of(twin)
    twin_coverage = start_from(twin, plans, folder, kind=VIT, scratch_twin=True)
    ours, theirs = network.state_dict(), twin.state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in theirs.items())
    new = [name for name in ours if name.removeprefix("backbone.") not in pretrained]
    assert len(new) == sum(row.num_tensors for row in coverage.rows if row.fate == "new") > 0
    assert all(torch.equal(ours[name], theirs[name]) for name in new)
    assert not torch.equal(ours["backbone.vit.patch_embed.weight"], theirs["backbone.vit.patch_embed.weight"])
    assert twin_coverage.is_scratch_twin
    assert {row.fate for row in twin_coverage.rows} == {"new"}
    assert twin_coverage.lines()[-1].endswith("100.0 % new (scratch twin: nothing is loaded)")


def test_the_channel_map_of_other_channels_is_their_mean_and_the_heads_stay(plans, write, caplog):
    caplog.set_level("INFO")
    name, plan = NAMES[0], plans[NAMES[0]]
    source = build({name: plan}, UNET, seed=1)
    task = Task(plan=plan.model_copy(update={"channel_names": ("T2",)}), state=source.tasks[0].state_dict())
    folder = write(UNET, source.backbone.state_dict(), {name: task})
    network = build({name: plan}, UNET, seed=2)
    coverage = start_from(network, {name: plan}, folder, kind=UNET)
    assert f"channels of {name}: " in caplog.text
    assert groups_of(coverage, "matched") == {f"{name} channel_map"}
    assert groups_of(coverage, "new") == set()
    assert torch.equal(network.tasks[0].heads[0].weight, source.tasks[0].heads[0].weight)


@pytest.mark.parametrize("regions", [False, True], ids=["classes", "regions"])
def test_heads_are_taken_over_class_by_class_by_name(plans, write, regions: bool, caplog):
    caplog.set_level("INFO")
    plan = plans[NAMES[0]]
    theirs = with_labels(plan, "liver", "spleen", "aorta", regions=regions)
    ours = with_labels(plan, "Aorta", "kidney", "liver", regions=regions)
    source = build({"organs": theirs}, UNET, seed=1)
    task = Task(plan=theirs, state=source.tasks[0].state_dict())
    folder = write(UNET, source.backbone.state_dict(), {"organs": task})
    network = build({"abdomen": ours}, UNET, seed=2)
    fresh = copy_of(network)
    coverage = start_from(network, {"abdomen": ours}, folder, kind=UNET)
    found, old = network.tasks[0].heads[0], source.tasks[0].heads[0]
    from_theirs = {0: 2, 2: 0} if regions else {0: 0, 1: 3, 3: 1}  # aorta and liver; background goes along
    for number in range(ours.labels.num_outputs):
        for part in ("weight", "bias"):
            value = getattr(found, part)[number]
            there = from_theirs.get(number)
            start = fresh[f"tasks.0.heads.0.{part}"][number] if there is None else getattr(old, part)[there]
            assert torch.equal(value, start), (number, part)
    rows = {row.fate: row for row in coverage.rows if row.group == "abdomen heads"}
    assert rows["loaded"].outputs == (() if regions else ("background",)) + ("Aorta", "liver")
    assert rows["new"].outputs == ("kidney",)
    assert rows["new"].num_parameters == 17  # sixteen channels and a bias
    assert rows["loaded"].num_parameters == 17 * len(from_theirs)
    assert "heads of abdomen begin as those of the model's task organs" in caplog.text
    assert any("abdomen heads: kidney" in line for line in coverage.lines())
    assert sum(row.num_parameters for row in coverage.rows) == sum(value.numel() for value in fresh.values())


def test_the_task_that_knows_most_classes_gives_its_heads():
    plan = Task(plan=TINY_PLAN, state={})
    one, two = (replace(plan, plan=with_labels(TINY_PLAN, *names)) for names in (["liver"], ["spleen", "liver"]))
    match = match_heads("new", with_labels(TINY_PLAN, "liver", "spleen").labels, {"one": one, "two": two})
    assert match is not None
    assert (match.task, match.numbers) == ("two", {0: 0, 1: 2, 2: 1})
    same = match_heads("two", with_labels(TINY_PLAN, "liver").labels, {"one": one, "two": two})
    assert same is not None
    assert same.task == "two"  # both know it, and this is the same dataset


def test_heads_of_other_classes_of_the_other_kind_and_of_mere_numbers_are_not_taken_over():
    def match(name: str, plan: Plan, other: Plan) -> object:
        return match_heads(name, plan.labels, {"there": Task(plan=other, state={})})

    liver, numbers = with_labels(TINY_PLAN, "liver"), with_labels(TINY_PLAN, "1", "2")
    assert match("new", liver, with_labels(TINY_PLAN, "heart")) is None
    assert match("new", liver, with_labels(TINY_PLAN, "liver", regions=True)) is None
    assert match("new", numbers, numbers) is None
    assert match("there", numbers, numbers) is not None


def test_heads_of_another_width_are_refused_and_nothing_is_changed(plans, write):
    name = NAMES[0]
    source = build({name: plans[name]}, UNET, seed=1)
    wrong = source.tasks[0].state_dict() | {"heads.0.bias": torch.zeros(5)}
    folder = write(UNET, source.backbone.state_dict(), {name: Task(plan=plans[name], state=wrong)})
    network = build({name: plans[name]}, UNET, seed=2)
    fresh = copy_of(network.tasks[0].heads)
    with pytest.raises(
        InputError, match=rf"tensor heads\.0\.bias of its task {name} is 5, not 2; copy the model again"
    ):
        start_from(network, {name: plans[name]}, folder, kind=UNET)
    assert all(torch.equal(value, fresh[key]) for key, value in network.tasks[0].heads.state_dict().items())


def test_weights_for_another_network_are_refused_and_the_right_options_named(plans, write):
    folder = write(UNET, build_backbone("spad_unet", "tiny").state_dict())
    assert kind_of(folder) == UNET
    for kind in (VIT, replace(UNET, preset="small")):
        message = (
            f"is a spad_unet tiny, not a {kind.backbone} {kind.preset}; "
            "give --backbone spad_unet --preset tiny, or leave both out"
        )
        with pytest.raises(InputError, match=message):
            start_from(build(plans, UNET, seed=0), plans, folder, kind=kind)


def test_a_tensor_without_a_place_or_of_another_shape_is_refused_and_nothing_is_changed(plans, write):
    state = build_backbone("spad_vit", "tiny").state_dict()
    wrong = {
        "decoder.ups.9.weight": (torch.ones(1), r"tensor decoder\.ups\.9\.weight has no place"),
        "vit.norm.weight": (torch.ones(7), r"tensor vit\.norm\.weight is 7, not 192"),
        "vit.pos_embed": (torch.ones(1, 96, 5, 10, 10), r"tensor vit\.pos_embed is 1×96×5×10×10, not 1×192×5×10×10"),
        "vit.cls_token": (torch.ones(1, 2, 192), r"tensor vit\.cls_token is 1×2×192, not 1×1×192"),
    }
    for number, (name, (value, message)) in enumerate(wrong.items()):
        network = build(plans, VIT, seed=2)
        fresh = copy_of(network)
        with pytest.raises(InputError, match=message):
            start_from(network, plans, write(VIT, state | {name: value}, name=str(number)), kind=VIT)
        assert all(torch.equal(value, fresh[key]) for key, value in network.state_dict().items())


@pytest.fixture
def eva02_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random numbers in the layout of the published files, for a transformer made for tests in the place of `tiny`."""
    monkeypatch.setitem(VIT_PRESETS, "tiny", ViTSize(width=24, depth=4, num_heads=2, hidden_width=32))
    torch.save({"module": random_file(24, 4, 32)}, tmp_path / "eva02.pt")
    return tmp_path / "eva02.pt"


def test_an_eva02_file_fills_the_transformer_and_is_told_as_inflated_and_loaded(plans, eva02_file: Path):
    assert kind_of(eva02_file) == VIT
    network = build(plans, VIT, seed=2)
    fresh = copy_of(network)
    coverage = start_from(network, plans, eva02_file, kind=VIT)
    expected = {f"backbone.vit.{name}": value for name, value in read_eva02(eva02_file, build_vit("tiny")).items()}
    for name, value in network.state_dict().items():
        assert torch.equal(value, expected.get(name, fresh[name])), name
    assert groups_of(coverage, "inflated") == {"vit.patch_embed", "vit.pos_embed"}
    blocks = {f"vit.blocks.{number}" for number in range(4)}
    assert groups_of(coverage, "loaded") == {"vit.cls_token", "vit.norm", *blocks}
    assert {"pyramid", "full_resolution", "decoder"} <= groups_of(coverage, "new")
    twin = start_from(build(plans, VIT, seed=2), plans, eva02_file, kind=VIT, scratch_twin=True)
    assert {row.fate for row in twin.rows} == {"new"}


def test_a_file_that_is_no_eva02_or_of_another_size_is_refused(plans, eva02_file: Path, tmp_path: Path):
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "resnet.pth")
    with pytest.raises(InputError, match=r"--init .*resnet\.pth: no EVA-02 as wide as a SPAD-ViT; give the file of an"):
        kind_of(tmp_path / "resnet.pth")
    with pytest.raises(InputError, match="is a spad_vit tiny, not a spad_unet tiny; give --backbone spad_vit"):
        start_from(build(plans, UNET, seed=0), plans, eva02_file, kind=UNET)
    content = torch.load(eva02_file, weights_only=True)["module"]
    torch.save({name: value for name, value in content.items() if name != "norm.bias"}, tmp_path / "part.pt")
    with pytest.raises(InputError, match=r"part\.pt: lacks norm\.bias"):
        start_from(build(plans, VIT, seed=0), plans, tmp_path / "part.pt", kind=VIT)
