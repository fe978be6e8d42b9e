from collections.abc import Callable
from typing import Any

import pytest
import torch

from densevit.checkpoints.rename import LoadReport, Renamed, Row, Rule, collapse, rename, require_total
from densevit.encoder import VisionTransformer
from densevit.errors import CheckpointError
from tests.unit.encoder_states import State, built, fresh, learned, load, misfit, outputs_agree, refusal, rows, same


def test_load__fills_every_parameter() -> None:
    source, encoder = built(layer_scale=0.1, num_registers=2), fresh(layer_scale=0.1, num_registers=2)

    report = load(encoder, source.state_dict())

    assert same(encoder, source)
    assert report.counts == {"loaded": len(source.state_dict()), "adapted": 0, "ignored": 0, "missing": 0}


def test_load__does_not_change_the_state_given() -> None:
    state = built(num_registers=1, positions=learned(num_prefix=1)).state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}

    load(fresh(num_registers=1, positions=learned(num_prefix=0, grid=(2, 2)), in_channels=1), state)

    assert all(torch.equal(state[name], before[name]) for name in before)


def test_half_precision__becomes_that_of_the_encoder() -> None:
    encoder = fresh()

    load(encoder, {name: tensor.half() for name, tensor in built().state_dict().items()})

    assert {p.dtype for p in encoder.parameters()} == {torch.float32}


def test_prefix__is_found_and_the_rest_reported() -> None:
    source, encoder = built(), fresh()
    state = {f"backbone.{name}": tensor for name, tensor in source.state_dict().items()}

    report = load(encoder, state | {"decode_head.weight": torch.ones(1)})

    assert same(encoder, source)
    assert rows(report, "ignored") == [("decode_head.weight", "not under backbone.")]


def test_state_without_encoder__is_refused() -> None:
    assert refusal(fresh(), {"layers.0.w": torch.ones(1), "layers.1.w": torch.ones(1), "out": torch.ones(1)}) == (
        "w.pth has no encoder; one with the names of timm or DINO is needed, such as patch_embed.proj.weight; "
        "pass only that part (names in the file: layers.{0..1}.w, out, ...)"
    )


def test_state_with_two_encoders__is_refused() -> None:
    state = {f"{who}.{k}": v for who in ("teacher", "student") for k, v in built().state_dict().items()}

    assert refusal(fresh(), state).startswith("w.pth has 2 encoders (under student., teacher.); one with ")


def chunked(name: str) -> str:
    return name.replace("blocks.0", "blocks.0.0").replace("blocks.1", "blocks.1.1")


@pytest.mark.parametrize(
    ("named", "positions"),
    [
        (
            lambda name: (
                name.replace("reg_token", "register_tokens").replace("mlp.fc1", "mlp.w12").replace("fc2", "w3")
            ),
            learned(),
        ),
        (lambda name: chunked(name), learned()),
        (lambda name: chunked(name).replace("mlp.fc1", "mlp.w12").replace("fc2", "w3"), learned()),
        (lambda name: name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"), {"kind": "rotary"}),
    ],
    ids=["dinov2", "dinov2 in chunks", "dinov2 in chunks, swiglu", "timm's eva"],
)
def test_other_names__are_understood(named: Callable[[str], str], positions: dict[str, Any]) -> None:
    facts: dict[str, Any] = {"mlp": "swiglu", "layer_scale": 0.1, "num_registers": 3, "positions": positions}
    source, encoder = built(**facts), fresh(**facts)
    state = {named(name): tensor for name, tensor in source.state_dict().items()}

    load(encoder, state)

    assert same(encoder, source)


@pytest.mark.parametrize(("gate", "value"), [("fc1_g", "fc1_x"), ("w1", "w2")], ids=["timm", "dinov3"])
def test_split_swiglu__is_joined_gate_first(gate: str, value: str) -> None:
    source, encoder = built(mlp="swiglu"), fresh(mlp="swiglu")
    state: State = {}
    for name, tensor in source.state_dict().items():
        if "mlp.fc1" in name:
            state[name.replace("fc1", value)], state[name.replace("fc1", gate)] = reversed(tensor.chunk(2))
        else:
            state[name.replace("fc2", "w3") if gate == "w1" else name] = tensor

    load(encoder, state)

    assert same(encoder, source)


def test_bias_of_queries_and_values__leaves_keys_without() -> None:
    source, encoder = built(), fresh()
    state = source.state_dict()
    for block in source.blocks:
        block.attn.qkv.bias.data[16:32] = 0  # of the keys
    for i in range(2):
        query, _, value = state.pop(f"blocks.{i}.attn.qkv.bias").chunk(3)
        state |= {f"blocks.{i}.attn.q_bias": query, f"blocks.{i}.attn.v_bias": value}

    load(encoder, state)

    assert same(encoder, source)


DINOV3: dict[str, Any] = {"num_registers": 2, "layer_scale": 0.1, "positions": {"kind": "rotary"}}


def dinov3_state(source: VisionTransformer, base: float = 100.0) -> State:
    state = {name.replace("reg_token", "storage_tokens"): t for name, t in source.state_dict().items()}
    mask = torch.cat([torch.ones(16), torch.zeros(16), torch.ones(16)])
    periods = (base ** (torch.arange(2) / 2)).bfloat16()
    masks = {f"blocks.{i}.attn.qkv.bias_mask": mask for i in range(2)}
    return state | masks | {"rope_embed.periods": periods, "mask_token": torch.ones(1, 16)}


def test_dinov3_names__are_understood_and_the_mask_of_the_key_bias_applied() -> None:
    source, encoder = built(**DINOV3), fresh(**DINOV3)

    report = load(encoder, dinov3_state(source))

    for block in source.blocks:
        block.attn.qkv.bias.data[16:32] = 0
    assert same(encoder, source)
    assert rows(report, "ignored") == [
        ("blocks.0.attn.qkv.bias_mask", "already applied to qkv.bias"),
        ("blocks.1.attn.qkv.bias_mask", "already applied to qkv.bias"),
        ("rope_embed.periods", "follows from positions.base"),
        ("mask_token", "used in pre-training only"),
    ]


def test_rotary_periods_of_another_base__are_refused() -> None:
    assert refusal(fresh(**DINOV3), dinov3_state(built(**DINOV3), base=400.0)) == (
        "w.pth has rotary periods up to 20, but positions.base 100 gives up to 10; set positions.base to that of the "
        "weights"
    )


def test_heads_of_pre_training__are_ignored() -> None:
    heads = ("head.weight", "head_dist.bias", "fc_norm.weight", "pre_logits.fc.weight", "attn_pool.q.weight")

    report = load(fresh(), built().state_dict() | {name: torch.ones(1) for name in heads})

    assert rows(report, "ignored") == [(name, "head of the pre-training task") for name in heads]


def test_blocks_after_the_last_tap_and_an_unused_norm__are_ignored() -> None:
    encoder = fresh(taps=(0,), final_norm=False)

    report = load(encoder, built().state_dict())

    assert {(name.split(".")[0], note) for name, note in rows(report, "ignored")} == {
        ("blocks", "after the last tap, 0"),
        ("norm", "final_norm is off"),
    }


def test_file_cut_after_the_last_tap__is_loaded() -> None:
    source, encoder = built(taps=(0,)), fresh(taps=(0,))

    load(encoder, source.state_dict())

    assert same(encoder, source)


@pytest.mark.parametrize(
    ("stored", "wanted", "lines"),
    [
        (
            {"depth": 3, "taps": (2,)},
            {},
            [
                "no such tensor in the model: "
                + ", ".join(
                    f"blocks.2.{layer}.{kind}"
                    for layer in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
                    for kind in ("weight", "bias")
                )
            ],
        ),
        ({"num_registers": 2}, {}, ["no such tensor in the model: reg_token"]),
        (
            {"layer_scale": 0.1},
            {},
            ["no such tensor in the model: blocks.{0..1}.ls1.gamma, blocks.{0..1}.ls2.gamma"],
        ),
        ({}, {"layer_scale": 0.1}, ["not in the file: blocks.{0..1}.ls1.gamma, blocks.{0..1}.ls2.gamma"]),
        ({"pre_norm": True}, {}, ["no such tensor in the model: norm_pre.weight, norm_pre.bias"]),
        ({}, {"qkv_bias": False}, ["no such tensor in the model: blocks.{0..1}.attn.qkv.bias"]),
        ({}, {"positions": {"kind": "rotary"}}, ["no such tensor in the model: pos_embed"]),
        ({"final_norm": False}, {}, ["not in the file: norm.weight, norm.bias"]),
        (
            {"mlp_ratio": 2.0},
            {},
            [
                "of another shape: blocks.{0..1}.mlp.fc1.weight (32, 16) for (64, 16), "
                "blocks.{0..1}.mlp.fc1.bias (32,) for (64,), blocks.{0..1}.mlp.fc2.weight (16, 32) for (16, 64)"
            ],
        ),
        ({"num_registers": 2}, {"num_registers": 4}, ["of another shape: reg_token (1, 2, 16) for (1, 4, 16)"]),
    ],
    ids=lambda case: ",".join(case) if isinstance(case, dict) else None,
)
def test_contradiction_of_file_and_config__is_refused(
    stored: dict[str, Any], wanted: dict[str, Any], lines: list[str]
) -> None:
    assert refusal(fresh(**wanted), built(**stored).state_dict()) == misfit(*lines)


def test_unknown_tensors__are_refused() -> None:
    state = built().state_dict() | {"adapter.weight": torch.ones(1), "blocks.0.attn.q_norm.weight": torch.ones(8)}

    assert refusal(fresh(), state) == misfit(
        "not understood: adapter.weight", "no such tensor in the model: blocks.0.attn.q_norm.weight"
    )


def test_refused_file__leaves_the_encoder_as_it_was() -> None:
    encoder = fresh()
    state = built().state_dict() | {"norm.bias": torch.ones(3)}

    refusal(encoder, state)

    assert same(encoder, fresh())


def test_ignore__leaves_tensors_out_and_says_so() -> None:
    source, encoder = built(dist_token=True, positions=learned(num_prefix=2)), fresh()
    state = source.state_dict() | {"blocks.0.attn.q_norm.weight": torch.ones(8), "adapter.x": torch.ones(1)}

    report = load(encoder, state, ignore=("dist_token", "blocks.*.q_norm.*", "adapter.*"))

    ignored = ["dist_token", "blocks.0.attn.q_norm.weight", "adapter.x"]
    assert rows(report, "ignored") == [(name, "as requested") for name in ignored]
    assert rows(report, "adapted") == [("pos_embed", "row of dist_token dropped")]
    assert torch.equal(encoder.pos_embed[:, 1:], source.pos_embed[:, 2:])


def test_allow_missing__keeps_the_initial_value_and_says_so() -> None:
    encoder = fresh(num_registers=2)

    report = load(encoder, built().state_dict(), allow_missing=("reg_*",))

    assert rows(report, "missing") == [("reg_token", "keeps its initial value")]
    assert torch.equal(encoder.reg_token, fresh(num_registers=2).reg_token)


def test_bias_left_out_of_the_file__is_zero() -> None:
    source, encoder = built(qkv_bias=False, patch_bias=False), fresh()

    report = load(encoder, source.state_dict())

    names = ["patch_embed.proj.bias", "blocks.0.attn.qkv.bias", "blocks.1.attn.qkv.bias"]
    assert rows(report, "adapted") == [(name, "zero, the file has none") for name in names]
    assert outputs_agree(encoder, source)


def test_zero_bias__may_be_without_a_place() -> None:
    source, encoder = built(), fresh(qkv_bias=False)
    for block in source.blocks:
        block.attn.qkv.bias.data.zero_()

    report = load(encoder, source.state_dict())

    names = ["blocks.0.attn.qkv.bias", "blocks.1.attn.qkv.bias"]
    assert rows(report, "ignored") == [(name, "zero, and the encoder has none") for name in names]


def test_report__is_a_table() -> None:
    source, encoder = built(depth=4, taps=(3,)), fresh(depth=4, taps=(1,), positions=learned(grid=(5, 4)))

    report = load(encoder, source.state_dict() | {"head.weight": torch.ones(1)})

    assert str(report).splitlines() == [
        "w.pth: 29 loaded, 1 adapted, 25 ignored, 0 missing",
        "  loaded   cls_token         1",
        "  loaded   patch_embed.*     2",
        "  loaded   blocks.{0..1}.*  24",
        "  loaded   norm.*            2",
        "  adapted  pos_embed         1  grid 3 x 3 -> 5 x 4 (bicubic)",
        "  ignored  head.weight       1  head of the pre-training task",
        "  ignored  blocks.{2..3}.*  24  after the last tap, 1",
    ]


def test_report__groups_what_shares_its_fate() -> None:
    biases = [Row(f"blocks.{i}.attn.qkv.bias", "adapted", "zero") for i in (0, 1, 3)]
    report = LoadReport("w", (*biases, Row("norm.bias", "missing")))

    assert str(report).splitlines() == [
        "w: 0 loaded, 3 adapted, 0 ignored, 1 missing",
        "  adapted  blocks.{0..1,3}.attn.qkv.bias  3  zero",
        "  missing  norm.bias                      1",
    ]


def test_rename__applies_the_first_rule_that_matches_the_whole_name() -> None:
    rules = (
        Rule("layers.{i}.ln{j}.{param}", "blocks.{i}.norm{j}.{param}"),
        Rule("layers.{i}.{rest}", "blocks.{i}.{rest}"),
        Rule("{name}.{param}", "other.{name}.{param}"),
    )
    names = ("layers.10.ln2.bias", "layers.0.a.b", "x.weight", "x.y.weight", "layers.a.b")

    renamed = rename({name: torch.ones(1) for name in names}, rules)

    assert list(renamed.tensors) == ["blocks.10.norm2.bias", "blocks.0.a.b", "other.x.weight"]
    assert renamed.unused == ("x.y.weight", "layers.a.b")


def test_rename__takes_literal_dots_literally() -> None:
    assert rename({"aXb": torch.ones(1)}, (Rule("a.b", "c"),)).unused == ("aXb",)


def test_rename__joins_parts_in_their_order() -> None:
    rules = [Rule(f"{name}.w", "qkv", part=(i, 3)) for i, name in enumerate("qkv")]
    state = {f"{name}.w": torch.full((2, 1), float(i)) for i, name in reversed(list(enumerate("qkv")))}

    renamed = rename(state, rules)

    assert renamed.tensors["qkv"].flatten().tolist() == [0, 0, 1, 1, 2, 2]
    assert renamed.sources["qkv"] == ("q.w", "k.w", "v.w")


def test_rename__converts_before_joining() -> None:
    renamed = rename({"a": torch.ones(2, 3)}, (Rule("a", "b", convert=lambda tensor: tensor.T),))

    assert renamed.tensors["b"].shape == (3, 2)


def test_rename__gives_the_reason_for_what_it_leaves_out() -> None:
    assert rename({"head.a": torch.ones(1)}, (Rule("head.{rest}", reason="unused"),)).ignored == {"head.a": "unused"}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {"q": torch.ones(1)},
            "x is joined from 2 tensors, but only q is there; download the file again",
        ),
        (
            {"q": torch.ones(1, 2), "k": torch.ones(1, 3)},
            "x cannot be joined from q (1, 2), k (1, 3); all axes but the first must agree",
        ),
        ({"q": torch.ones(1), "q2": torch.ones(1)}, "q and q2 both become x; keep one of the two"),
    ],
)
def test_rename__refuses_what_does_not_add_up(state: State, message: str) -> None:
    rules = (Rule("q", "x", part=(0, 2)), Rule("q2", "x", part=(0, 2)), Rule("k", "x", part=(1, 2)))

    with pytest.raises(CheckpointError) as error:
        rename(state, rules)

    assert str(error.value) == message


@pytest.mark.parametrize("arguments", [{}, {"target": "b", "reason": "unused"}])
def test_rule__needs_either_target_or_reason(arguments: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="either a target or the reason"):
        Rule("a", **arguments)


def test_require_total__names_everything_that_breaks_the_proof() -> None:
    renamed = Renamed({"a": torch.ones(2), "b": torch.ones(1)}, {}, {}, ("c", "d"))

    with pytest.raises(CheckpointError) as error:
        require_total(renamed, {"a": torch.Size([3]), "e": torch.Size([1])}, source="w", advice="mend it")

    assert str(error.value).splitlines() == [
        "w does not fit the model, and nothing was loaded:",
        "  not understood: c, d",
        "  no such tensor in the model: b",
        "  not in the file: e",
        "  of another shape: a (2,) for (3,)",
        "mend it",
    ]


def test_collapse__joins_runs_of_numbers() -> None:
    names = ["b.0.w", "b.1.w", "b.2.w", "b.4.w", "b.7.v", "norm"]

    assert collapse(names) == ["b.{0..2,4}.w", "b.7.v", "norm"]


def test_registers_without_rows__are_none() -> None:
    state = built().state_dict() | {"reg_token": torch.zeros(1, 0, 16)}
    encoder = fresh()

    report = load(encoder, state)

    assert same(encoder, built())
    assert rows(report, "ignored") == [("reg_token", "holds no token")]


def test_decoder_of_mae__is_ignored() -> None:
    added = {"decoder_embed.weight": torch.zeros(8, 16), "decoder_blocks.0.attn.qkv.weight": torch.zeros(24, 8)}

    assert {name for name, _ in rows(load(fresh(), built().state_dict() | added), "ignored")} == set(added)


def test_bias_lost_in_one_block__is_missed() -> None:
    state = built().state_dict()
    del state["blocks.1.mlp.fc1.bias"]

    assert "not in the file: blocks.1.mlp.fc1.bias" in refusal(fresh(), state)


def test_biases_that_no_block_has__are_zero() -> None:
    source, encoder = built(), fresh()
    names = [name for name in source.state_dict() if name.endswith(("fc1.bias", "fc2.bias", "attn.proj.bias"))]
    state = {name: tensor for name, tensor in source.state_dict().items() if name not in names}
    for block in source.blocks:
        for layer in (block.mlp.fc1, block.mlp.fc2, block.attn.proj):
            layer.bias.data.zero_()

    report = load(encoder, state)

    assert same(encoder, source)
    assert sorted(rows(report, "adapted")) == sorted((name, "zero, the file has none") for name in names)
