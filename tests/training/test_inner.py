from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from matlib.attacks.ascent import ScaleViews
from matlib.attacks.edits import Edit, apply_edit, n_changed_words
from matlib.attacks.noise import Noise
from matlib.attacks.objectives import caption_contrastive, squared_distance, symmetric_contrastive
from matlib.attacks.pgd import PGD
from matlib.attacks.word_substitution import WordSubstitution
from matlib.defences.batch import Batch
from matlib.defences.inner_attack import (
    InnerAttack,
    as_measured,
    away_from_all,
    image_objective,
    random_word_edits,
    text_objective,
)
from matlib.defences.table import DEFENCES, defence
from matlib.models.open_clip import OpenClipEncoder
from tests.toys import generator, random_pixels, tiny_encoder
from tests.training.toy_batches import (
    CANDIDATES,
    CAPTIONS,
    INNER,
    exact_encoder,
    fresh_encoder,
    pair_generators,
    part,
    streams,
    toy_batch,
)
from tests.training.two_processes import TwoProcesses, on_two

NAMES = list(DEFENCES)
DISTINCT = [name for name in NAMES if name != "mat+"]  # mat by another name


def attack(name: str, encoder: OpenClipEncoder, inner: InnerAttack = INNER, **changes) -> Batch:  # type: ignore[no-untyped-def]
    batch, how = toy_batch(), replace(defence(name), **changes)
    return how.attack(encoder, batch, inner, CANDIDATES, pair_generators(batch), exact_encoder(1))


def distance(a: str, b: str) -> int:
    """Levenshtein's, by its recursion over rows."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        new = [i + 1]
        for j, y in enumerate(b):
            new.append(min(row[j + 1] + 1, new[j] + 1, row[j] + (x != y)))
        row = new
    return row[-1]


@pytest.mark.parametrize("name", NAMES)
def test_a_defence_attacks_what_it_names_within_its_budget_and_nothing_else(name: str) -> None:
    how, encoder, batch = defence(name), fresh_encoder().train(), toy_batch()
    found = attack(name, encoder)
    assert bool((found.pixels != batch.pixels).any()) == how.attacks_image
    assert float((found.pixels - batch.pixels).abs().max()) <= 8 / 255 + 1e-12
    assert float(found.pixels.min()) >= 0 and float(found.pixels.max()) <= 1
    assert (found.captions != CAPTIONS) == how.attacks_text
    if how.needs_candidates:
        assert max(map(n_changed_words, CAPTIONS, found.captions)) <= 1
    assert all(
        distance(a, b) <= 1 or how.needs_candidates
        for a, b in zip(CAPTIONS, found.captions, strict=True)
    )
    assert torch.equal(found.index, batch.index)


@pytest.mark.parametrize("name", DISTINCT)
def test_attacks_leave_no_gradient_mode_or_weight_behind(name: str) -> None:
    """MMCoA's released update holds the gradients of its ten PGD steps; here there are none."""
    encoder, reference = fresh_encoder().train(), fresh_encoder(1).train()
    encoder.clip.visual.requires_grad_(False)
    before = [exact_encoder(seed).state_dict() for seed in (0, 1)]
    flags = [p.requires_grad for p in encoder.parameters()]
    batch = toy_batch()
    defence(name).attack(encoder, batch, INNER, CANDIDATES, pair_generators(batch), reference)
    for model, state in zip((encoder, reference), before, strict=True):
        assert all(module.training for module in model.modules())
        assert all(p.grad is None for p in model.parameters())
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert flags == [p.requires_grad for p in encoder.parameters()]


@pytest.mark.parametrize("name", [n for n in DISTINCT if "clean" not in n and n != "mmcoa"])
def test_the_inner_attack_raises_the_loss_that_training_descends(name: str) -> None:
    how, encoder, reference = defence(name), exact_encoder(), exact_encoder(1)
    inner = replace(INNER, image=PGD(16.0, 10), text=WordSubstitution(1, search="exhaustive"))
    clean, found = toy_batch(), attack(name, encoder, inner)
    with torch.no_grad():
        before = float(how.loss(encoder, clean, clean, reference))
        after = float(how.loss(encoder, clean, found, reference))
    assert after > before + 1e-3 * abs(before)


@pytest.mark.parametrize("name", DISTINCT)
def test_a_batch_in_two_halves_is_attacked_as_the_whole(name: str) -> None:
    inner = replace(INNER, max_edits=2)
    whole = attack(name, exact_encoder(), inner)

    copies = [(fresh_encoder(), fresh_encoder(1)) for _ in range(2)]

    def half(processes: TwoProcesses) -> Batch:
        batch, (encoder, reference) = part(toy_batch(), processes.rank), copies[processes.rank]
        draws = pair_generators(batch)
        return defence(name).attack(
            encoder,
            batch,
            inner,
            CANDIDATES,
            draws,
            reference,
            processes,  # type: ignore[arg-type]
        )

    halves = on_two(half)
    assert [c for batch in halves for c in batch.captions] == whole.captions
    pixels = torch.cat([batch.pixels for batch in halves])
    assert torch.allclose(pixels, whole.pixels, atol=1e-9)


def unit_rows(seed: int) -> Tensor:
    rows = torch.randn(4, 16, generator=generator(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(rows)


@pytest.mark.parametrize("name", ["mat", "tecoa"])
def test_objectives_of_two_halves_have_the_scores_and_the_slope_of_the_whole(name: str) -> None:
    how, encoder, image, text = defence(name), exact_encoder(), unit_rows(0), unit_rows(1)

    def scored(image: Tensor, text: Tensor, *processes: TwoProcesses) -> tuple[Tensor, Tensor]:
        leaf = image.clone().requires_grad_(True)
        score = image_objective(how, encoder, text, None, *processes)(leaf)  # type: ignore[arg-type]
        return score.detach(), torch.autograd.grad(score.sum(), leaf)[0]

    halves = on_two(lambda own: scored(image.chunk(2)[own.rank], text.chunk(2)[own.rank], own))
    for whole, *parts in zip(scored(image, text), *halves, strict=True):
        assert torch.allclose(torch.cat(parts), whole, atol=1e-12)


def test_a_caption_of_one_half_is_scored_against_the_images_of_both() -> None:
    how, encoder, image, text = defence("mat"), exact_encoder(), unit_rows(0), unit_rows(1)

    def scored(image: Tensor, text: Tensor, *processes: TwoProcesses) -> Tensor:
        score = text_objective(how, encoder, image, None, *processes)  # type: ignore[arg-type]
        assert score is not None
        return score(text, torch.arange(len(text)))

    halves = on_two(lambda own: scored(image.chunk(2)[own.rank], text.chunk(2)[own.rank], own))
    assert torch.allclose(torch.cat(halves), scored(image, text), atol=1e-12)


def test_the_three_orders_differ_in_what_each_step_sees() -> None:
    encoder = exact_encoder()
    image, text = attack("image-at", encoder), attack("text-at", encoder)
    independent = attack("mat", encoder, order="independent")
    assert torch.equal(independent.pixels, image.pixels)
    assert independent.captions == text.captions

    scale = encoder.logit_scale.detach()
    first = attack("mat", encoder, order="text_then_image")
    with torch.no_grad():
        seen = encoder.encode_text(text.captions)
    clean = toy_batch()
    pixels = INNER.image(
        encoder, clean.pixels, symmetric_contrastive(seen, scale), generator=streams(clean)
    )
    assert first.captions == text.captions and torch.allclose(first.pixels, pixels)

    last = attack("mat", encoder, order="image_then_text")
    with torch.no_grad():
        moved = encoder.encode_image(image.pixels)
    score = caption_contrastive(moved, torch.eye(4, dtype=torch.bool), scale)
    table = [CANDIDATES[c] for c in CAPTIONS]
    assert torch.equal(last.pixels, image.pixels)
    assert last.captions == INNER.text(encoder, CAPTIONS, table, score)


def test_mmcoa_attacks_text_without_images_and_images_against_clean_captions() -> None:
    encoder, batch = exact_encoder(), toy_batch()
    found = attack("mmcoa", encoder)
    table = [CANDIDATES[c] for c in CAPTIONS]
    assert found.captions == INNER.text(encoder, CAPTIONS, table)
    assert torch.equal(found.pixels, attack("tecoa", encoder).pixels)
    assert batch.captions == CAPTIONS


FAMILIES = (("red circle", "a disc"), ("blue star",), ("near", "small green cross", "far"),
            ("large square",))  # fmt: skip


def test_the_set_level_step_ascends_the_mean_of_all_captions_of_an_image() -> None:
    encoder, batch = exact_encoder(), replace(toy_batch(), families=FAMILIES)
    how = defence("mat+set")
    found = how.attack(encoder, batch, INNER, CANDIDATES, pair_generators(batch))
    words = attack("text-at", encoder).captions
    assert found.captions == words  # the words are MAT's
    now = [[words[i] if c == CAPTIONS[i] else c for c in own] for i, own in enumerate(FAMILIES)]
    with torch.no_grad():
        means = torch.stack([encoder.encode_text(own).mean(0) for own in now])
    score = symmetric_contrastive(
        means / means.norm(dim=1, keepdim=True), encoder.logit_scale.detach()
    )
    pixels = INNER.image(encoder, batch.pixels, score, generator=streams(batch))
    assert torch.allclose(found.pixels, pixels)
    assert not torch.equal(found.pixels, attack("mat", encoder).pixels)


def test_of_one_caption_the_set_level_step_is_mats() -> None:
    encoder = exact_encoder()
    plain, single = attack("mat", encoder), attack("mat+set", encoder)
    assert torch.allclose(plain.pixels, single.pixels, atol=1e-12)


def test_mava_ascends_what_its_formula_says_and_takes_the_mean_of_the_last_points() -> None:
    encoder, reference = exact_encoder(), exact_encoder(1)
    batch = replace(toy_batch(), families=FAMILIES)
    with torch.no_grad():
        clean = reference.encode_image(batch.pixels)
        texts = [encoder.encode_text(own) for own in FAMILIES]
        image = encoder.encode_image(random_pixels(4, 3).double())
    score = away_from_all(
        clean, torch.stack([text.mean(0) for text in texts]), torch.tensor(list(map(len, texts)))
    )(image)
    for v, v0, text, found in zip(image, clean, texts, score, strict=True):
        far = (v - v0).square().sum() + (v - text).square().sum(1).mean()
        assert torch.allclose(found, far - (text @ v).sum())
    inner = replace(INNER, image=PGD(8.0, 6))
    moved = defence("mava").attack(
        encoder, batch, inner, CANDIDATES, pair_generators(batch), reference
    )
    last = defence("mava").attack(  # a mean of one point is the point
        encoder, batch, replace(INNER, image=PGD(8.0, 1)), CANDIDATES, pair_generators(batch),
        reference,
    )  # fmt: skip
    assert float((moved.pixels - batch.pixels).abs().max()) <= 8 / 255 + 1e-12
    steps = (moved.pixels - last.pixels).abs() * 255
    assert float(steps.max()) > 0


def test_leafs_loss_on_words_takes_the_farthest_allowed_word() -> None:
    encoder, reference = exact_encoder(), exact_encoder(1)
    every = replace(INNER, text=WordSubstitution(1, search="exhaustive"))
    found = attack("fare+leaf-valid", encoder, every)
    assert torch.equal(found.pixels, attack("fare", encoder).pixels)
    with torch.no_grad():
        for clean, moved in zip(CAPTIONS, found.captions, strict=True):
            options = [clean, *(apply_edit(clean, edit) for edit in CANDIDATES[clean])]
            target = reference.text_features([clean])
            far = (encoder.text_features(options) - target).square().sum(1)
            assert moved == options[int(far.argmax())]


def test_random_words_ask_neither_the_model_nor_the_image() -> None:
    one, other = attack("clean+random", exact_encoder()), attack("clean+random", exact_encoder(5))
    assert one.captions == other.captions
    again = attack("image-at+random", exact_encoder(), replace(INNER, image=PGD(2.0, 1)))
    assert again.captions == one.captions


@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["a", "b", "red"])), max_size=9),
    n_words=st.integers(0, 4),
    seed=st.integers(0, 99),
)
def test_random_edits_change_as_many_words_as_they_may(
    rows: list[tuple[int, str]], n_words: int, seed: int
) -> None:
    caption, row = "red b star", [Edit(*r) for r in rows]
    edits = random_word_edits(caption, row, n_words, generator(seed))
    effective = {e.position for e in row if apply_edit(caption, e) != caption}
    assert len(edits) == min(n_words, len(effective))
    assert len({e.position for e in edits}) == len(edits) and set(edits) <= set(row)
    for edit in edits:
        caption = apply_edit(caption, edit)
    assert n_changed_words("red b star", caption) == len(edits)


def test_random_edits_are_uniform_over_what_is_allowed() -> None:
    row, g = [Edit(0, "a"), Edit(0, "b"), Edit(1, "c"), Edit(1, "x")], generator()
    counts = dict.fromkeys(row, 0)
    for _ in range(1500):
        [edit] = random_word_edits("red x", row, 1, g)
        counts[edit] += 1
    assert counts.pop(row[3]) == 0  # it changes nothing
    assert all(abs(n - 500) < 75 for n in counts.values())  # four standard deviations


def test_max_edits_bounds_the_forwards_and_is_drawn_per_pair() -> None:
    few = replace(INNER, max_edits=1, text=WordSubstitution(1, search="exhaustive"))
    batch = toy_batch()
    how = defence("text-at")
    alone = [
        how.attack(
            exact_encoder(), batch, few, {CAPTIONS[i]: CANDIDATES[CAPTIONS[i]]},
            pair_generators(batch),
        ).captions[i]
        for i in range(4)
    ]  # fmt: skip
    assert attack("text-at", exact_encoder(), few).captions == alone


def test_captions_without_candidates_stay() -> None:
    batch = toy_batch()
    for name in ("text-at", "clean+random"):
        found = defence(name).attack(exact_encoder(), batch, INNER, {}, pair_generators(batch))
        assert found.captions == CAPTIONS


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_image_with_a_stream_of_its_own_does_not_depend_on_its_neighbours(
    norm: str,
) -> None:
    encoder, pixels = exact_encoder(), random_pixels(3).double()
    pgd = PGD(8.0 if norm == "linf" else 80.0, 3, norm=norm)  # type: ignore[arg-type]

    def moved(rows: list[int]) -> Tensor:
        with torch.no_grad():
            clean = encoder.encode_image(pixels[rows])
        streams = Noise(torch.tensor(rows))
        return pgd(encoder, pixels[rows], squared_distance(clean), generator=streams)

    together = moved([0, 1, 2])
    for i in range(3):
        assert torch.allclose(moved([i]), together[i : i + 1], atol=1e-9)


def test_generators_that_do_not_fit_are_refused() -> None:
    encoder, pixels = tiny_encoder(), random_pixels(3)
    with torch.no_grad():
        score = squared_distance(encoder.encode_image(pixels))
    with pytest.raises(ValueError, match="2 for 3"):
        PGD(8.0, 1)(encoder, pixels, score, generator=Noise(torch.arange(2)))
    with pytest.raises(ValueError, match="2 for 3"):
        streams, views = Noise(torch.arange(2)), ScaleViews((0.5,))
        PGD(8.0, 1, start="none")(encoder, pixels, score, generator=streams, views=views)
    batch = toy_batch()
    with pytest.raises(ValueError, match="one generator per pair"):
        defence("mat").attack(exact_encoder(), batch, INNER, CANDIDATES, [generator()])
    with pytest.raises(ValueError, match="model before fine-tuning"):
        defence("fare").attack(exact_encoder(), batch, INNER, {}, pair_generators(batch))


@pytest.mark.parametrize("name", ["mat", "tecoa", "fare", "fare+leaf"])
def test_a_judge_can_ascend_the_inner_objectives_with_more_steps(name: str) -> None:
    how, encoder, batch = defence(name), exact_encoder(), toy_batch()
    with torch.no_grad():
        text, target = encoder.encode_text(CAPTIONS), encoder.image_features(batch.pixels)
        words = encoder.text_features(CAPTIONS)
        image = encoder.encode_image(batch.pixels)
    score, seen = image_objective(how, encoder, text, target), as_measured(how.image, encoder)

    def value(pixels: Tensor) -> float:
        with torch.no_grad():
            return float(score(seen.encode_image(pixels)).sum())

    few, many = (
        value(PGD(8.0, n)(seen, batch.pixels, score, generator=generator())) for n in (1, 20)
    )
    assert many > few > value(batch.pixels)
    if how.attacks_text:
        objective = text_objective(how, encoder, image, words)
        assert objective is not None
        with torch.no_grad():
            found = as_measured(how.text, encoder).encode_text(CAPTIONS)
        assert objective(found, torch.arange(4)).shape == (4,)


def test_a_judge_may_have_several_captions_per_image() -> None:
    how, encoder, batch = defence("mat"), exact_encoder(), toy_batch()
    relevant = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]]).bool()
    with torch.no_grad():
        text = encoder.encode_text(CAPTIONS)
        image = encoder.encode_image(batch.pixels[:2])
    score = image_objective(how, encoder, text, relevant=relevant)(image)
    logits = encoder.logit_scale.detach() * image @ text.T
    expected = [
        logits[0, 2:].logsumexp(0) - logits[0, :2].logsumexp(0),
        logits[1, :2].logsumexp(0) - logits[1, 2:].logsumexp(0),
    ]
    assert torch.allclose(score, torch.stack(expected))
    words = text_objective(how, encoder, image, relevant=relevant.T)
    assert words is not None and words(text, torch.arange(4)).shape == (4,)


def test_objectives_without_a_step_or_its_features_are_refused() -> None:
    encoder, image = exact_encoder(), torch.ones(2, 16)
    with pytest.raises(ValueError, match="no image step"):
        image_objective(defence("clean"), encoder, image)
    with pytest.raises(ValueError, match="no text step that ascends"):
        text_objective(defence("clean+random"), encoder, image)
    with pytest.raises(ValueError, match="needs reference_features"):
        image_objective(defence("fare"), encoder, None)
    assert text_objective(defence("mmcoa"), encoder, None) is None
