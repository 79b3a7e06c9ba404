from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from matlib.attacks.edits import Edit
from matlib.attacks.pgd import PGD
from matlib.attacks.word_substitution import WordSubstitution
from matlib.data.pairs import OneToMany
from matlib.defences.batch import draw_batches
from matlib.defences.inner_attack import InnerAttack, PairwiseCharacterEdits
from matlib.defences.table import DEFENCES, defence
from matlib.models.dual_encoder import TowerPart
from matlib.models.open_clip import OpenClipEncoder
from matlib.training.checkpoint import last_checkpoint, load_weights, save_weights
from matlib.training.log import Bookkeeping
from matlib.training.loop import check_processes, train
from matlib.training.schedule import Schedule
from matlib.training.step import NonFiniteLossError
from tests.toys import WORDS, generator, tiny_encoder

INNER = InnerAttack(PGD(4.0, 1), WordSubstitution(1))


def toy_data(n: int = 8, captions: int = 2, renderings: int = 2) -> OneToMany:
    images = torch.randint(256, (n, renderings, 3, 16, 16), generator=generator()).byte()
    texts = tuple(
        tuple(f"{WORDS[i]} {WORDS[(i + v + 1) % 13]}" for v in range(captions)) for i in range(n)
    )
    return OneToMany("toy", texts, images)


def toy_candidates(data: OneToMany) -> dict[str, list[Edit]]:
    return {c: [Edit(0, "near")] for variants in data.captions for c in variants}


def state(encoder: OpenClipEncoder) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in encoder.state_dict().items()}


def run(name: str, seed: int = 0, n_steps: int = 3) -> tuple[OpenClipEncoder, dict]:  # type: ignore[type-arg]
    encoder, data = tiny_encoder(), toy_data()
    before = state(encoder)
    train(
        encoder, data, defence(name), Schedule(n_steps, 4, 1e-3), seed=seed, inner=INNER,
        candidates=toy_candidates(data),
    )  # fmt: skip
    return encoder, before


@pytest.mark.parametrize("name", list(DEFENCES))
def test_only_the_named_towers_learn(name: str) -> None:
    encoder, before = run(name)
    moved = {
        {"clip.visual": "image", "clip.text": "text"}.get(".".join(key.split(".")[:2]), "scale")
        for key, value in encoder.state_dict().items()
        if not torch.equal(value, before[key])
    }
    assert moved == set(defence(name).towers)
    assert all(p.requires_grad for p in encoder.parameters())


def test_same_seed_same_weights_and_another_differs() -> None:
    (a, _), (b, _), (c, _) = run("mat", 0), run("mat", 0), run("mat", 1)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.clip.visual.proj, c.clip.visual.proj)


def test_training_learns_to_match_pairs() -> None:
    encoder, data = tiny_encoder(), toy_data(captions=1, renderings=1)
    history = train(encoder, data, defence("clean"), Schedule(60, 8, 3e-3), seed=0)
    assert history.rows[-1]["loss"] < 0.3 * history.rows[0]["loss"]


def test_an_epoch_visits_every_original_once_with_its_own_variants() -> None:
    data = toy_data(8)
    batches = draw_batches(data, 4, generator())
    everything, cpu = slice(None), torch.device("cpu")
    seen = [next(batches).take(data, everything, cpu, torch.float32) for _ in range(2)]
    captions = [c for part in seen for c in part.captions]
    owners = [next(i for i in range(8) if c in data.captions[i]) for c in captions]
    assert sorted(owners) == list(range(8))
    for part in seen:
        for image, caption in zip(part.pixels, part.captions, strict=True):
            own = [i for i in range(8) if caption in data.captions[i]]
            assert any(
                torch.allclose(image, rendering.float() / 255)
                for i in own
                for rendering in data.images[i]
            )


def test_nan_loss_stops_names_the_step_and_keeps_the_last_good_weights(tmp_path: Path) -> None:
    encoder = tiny_encoder()

    def poison(row: Mapping[str, float]) -> None:
        if row["step"] == 2:
            with torch.no_grad():
                encoder.clip.visual.proj.fill_(float("nan"))

    with pytest.raises(NonFiniteLossError, match=r"step 3.*last good weights were restored"):
        train(
            encoder, toy_data(), defence("clean"), Schedule(9, 4, 1e-3, checkpoint_every=1),
            seed=0, books=Bookkeeping(tmp_path, on_row=poison),
        )  # fmt: skip
    assert torch.isfinite(encoder.clip.visual.proj).all()
    kept, _ = last_checkpoint(tmp_path)
    assert kept is not None
    assert torch.equal(kept.tensors["weights/clip.visual.proj"], encoder.clip.visual.proj)


def test_finished_training_leaves_no_checkpoint_behind(tmp_path: Path) -> None:
    train(
        tiny_encoder(),
        toy_data(),
        defence("clean"),
        Schedule(2, 4, 1e-3),
        seed=0,
        books=Bookkeeping(tmp_path),
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 1, 1e-3), "at least 2 pairs"),
        ((3, 4, 2.0), "learning rate"),
        ((0, 4, 1e-3), "one step"),
    ],
)
def test_impossible_schedules_are_refused(arguments: tuple, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=message):
        Schedule(*arguments)


def test_missing_attack_candidates_or_pairs_are_refused_before_training() -> None:
    encoder, data, schedule = tiny_encoder(), toy_data(), Schedule(1, 4, 1e-3)
    with pytest.raises(ValueError, match="pass the inner attack"):
        train(encoder, data, defence("image-at"), schedule, seed=0)
    with pytest.raises(ValueError, match="candidate edits"):
        train(encoder, data, defence("mat"), schedule, seed=0, inner=INNER)
    with pytest.raises(ValueError, match="a batch of 9"):
        train(encoder, data, defence("clean"), Schedule(1, 9, 1e-3), seed=0)


def refused(name: str, message: str, inner: InnerAttack = INNER, **more) -> None:  # type: ignore[no-untyped-def]
    data = more.pop("data", toy_data())
    given = {"candidates": toy_candidates(data), **more}
    with pytest.raises(ValueError, match=message):
        train(
            tiny_encoder(), data, defence(name), Schedule(1, 4, 1e-3), seed=0, inner=inner, **given
        )


@pytest.mark.parametrize("name", ["mat", "text-at", "mmcoa", "clean+random"])
def test_a_table_that_changes_no_caption_is_not_trained_with(name: str) -> None:
    data = toy_data()
    same = {c: [Edit(0, c.split(" ")[0])] for own in data.captions for c in own}
    refused(name, "16 of the 16 captions have no key", candidates={})
    refused(name, "change none of the 16 captions", candidates=same)
    refused(name, "change none of the 16 captions", candidates=dict.fromkeys(same, ()))


def test_keys_that_miss_are_counted_with_what_they_miss_by() -> None:
    whole = toy_candidates(toy_data())
    shouted = {key.upper().replace(" ", "  "): row for key, row in whole.items()}
    refused("mat", r"16 keys are no caption.*'RED  BLUE' differs in spaces", candidates=shouted)
    some = dict(list(whole.items())[3:])
    refused("mat", r"3 of the 16 captions have no key.*'red blue'.*0 keys", candidates=some)
    wrong = {**whole, "red blue": [Edit(7, "near")]}
    refused("mat", "lies outside", candidates=wrong)
    refused("mat", "one word", candidates={**whole, "red blue": [Edit(0, "two words")]})


def test_few_captions_that_can_be_attacked_are_said_once() -> None:
    data = toy_data()
    few = {key: row if key == "red blue" else [] for key, row in toy_candidates(data).items()}
    history = train(
        tiny_encoder(), data, defence("mat"), Schedule(2, 4, 1e-3), seed=0, inner=INNER,
        candidates=few,
    )  # fmt: skip
    assert [text for text in history.warnings if text.startswith("15 of 16 captions")]
    assert len(history.warnings) == 1


def test_mat_plus_on_single_pairs_is_refused_as_it_would_be_mat() -> None:
    refused("mat+", "each of the 8 pairs has one of both", data=toy_data(8, 1, 1))
    for captions, renderings in ((2, 1), (1, 2)):
        data = toy_data(8, captions, renderings)
        train(
            tiny_encoder(), data, defence("mat+"), Schedule(1, 4, 1e-3), seed=0, inner=INNER,
            candidates=toy_candidates(data),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "inner", "message"),
    [
        ("mat", InnerAttack(PGD(0.0, 1), WordSubstitution(1)), r"image\.eps_255 0"),
        ("tecoa", InnerAttack(PGD(4.0, 0), WordSubstitution(1)), r"image\.n_steps 0"),
        ("text-at", InnerAttack(PGD(0.0, 0), WordSubstitution(0)), r"has text\.n_words 0"),
        (
            "leaf",
            InnerAttack(
                PGD(4.0, 1), WordSubstitution(1), characters=PairwiseCharacterEdits(n_edits=0)
            ),
            r"characters\.n_edits 0",
        ),
    ],
)
def test_an_attack_of_size_zero_is_not_trained_with(
    name: str, inner: InnerAttack, message: str
) -> None:
    refused(name, message, inner)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"micro_batches": 3}, "does not divide into 3"),
        ({"micro_batches": 4}, "leave 1 pair each"),
        ({"warmup": 1.0}, r"share of the steps in \[0, 1\)"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"weight_decay": -1.0}, "weight decay"),
        ({"lr": float("nan")}, "learning rate"),
        ({"mixed_precision": False}, "with quotes"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=message):
        Schedule(**{"n_steps": 3, "batch_size": 4, "lr": 1e-3, **settings})


def test_a_tower_that_the_model_has_not_is_named_before_training() -> None:
    class ImageOnly(OpenClipEncoder):
        def towers(self) -> dict[str, list[TowerPart]]:
            return {name: parts for name, parts in super().towers().items() if name != "text"}

    encoder = tiny_encoder()
    encoder.__class__ = ImageOnly
    with pytest.raises(ValueError, match=r"mat trains the part 'text', which this model has not"):
        train(
            encoder, toy_data(), defence("mat"), Schedule(1, 4, 1e-3), seed=0, inner=INNER,
            candidates={},
        )  # fmt: skip


def test_what_has_no_towers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Linear cannot be trained: expected .* `towers`"):
        train(torch.nn.Linear(1, 1), toy_data(), defence("clean"), Schedule(1, 4, 1e-3), seed=0)  # type: ignore[arg-type]


def test_processes_must_share_a_batch_equally() -> None:
    with pytest.raises(ValueError, match=r"5 processes are more than the 4 pairs"):
        check_processes(Schedule(1, 8, 1e-3, micro_batches=2), 5)
    with pytest.raises(ValueError, match=r"do not divide into 3 equal parts.*multiple of 6"):
        check_processes(Schedule(1, 8, 1e-3, micro_batches=2), 3)


def test_half_floats_on_a_cpu_are_refused() -> None:
    schedule = Schedule(1, 4, 1e-3, mixed_precision="fp16")
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        train(tiny_encoder(), toy_data(), defence("clean"), schedule, seed=0)


def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero() -> None:
    rates = [Schedule(20, 4, 1e-3, warmup=0.25).lr_at(step) for step in range(20)]
    assert rates[:5] == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4, 1e-3])
    assert rates[4:] == sorted(rates[4:], reverse=True) and rates[-1] == pytest.approx(0)


def test_parts_of_a_batch_have_the_mean_of_their_losses() -> None:
    encoder, data = tiny_encoder(), toy_data()
    schedule = Schedule(1, 8, 1e-3, micro_batches=2)
    draw = next(draw_batches(data, 8, generator()))
    expected = []
    for rows in (slice(0, 4), slice(4, 8)):
        batch = draw.take(data, rows, torch.device("cpu"), torch.float32)
        expected.append(defence("clean").loss(encoder, batch, batch).item())
    history = train(encoder, data, defence("clean"), schedule, seed=0)
    assert history.rows[0]["loss"] == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_weights_of_another_architecture_are_refused_by_name(tmp_path: Path) -> None:
    save_weights(torch.nn.Linear(2, 3), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"2 tensors do not fit.*bias"):
        load_weights(torch.nn.Linear(2, 4), tmp_path / "w.safetensors")
