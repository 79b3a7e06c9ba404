"""The sanity battery: real models pass, masked gradients are caught, numbers are plain recalls."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from matlib.attacks.apgd import APGD
from matlib.attacks.edits import Edit
from matlib.attacks.gallery import Gallery
from matlib.attacks.multimodal import pgd_attack
from matlib.attacks.pgd import PGD
from matlib.data.pairs import ImageTensor, ImageTextPairs
from matlib.evaluation import sanity_checks
from matlib.evaluation.retrieval import Outcomes
from matlib.evaluation.sanity_checks import sanity, to_frame, verdicts
from matlib.evaluation.sanity_subject import ALPHA, Check, SanitySubject
from matlib.evaluation.statistics import primary_difference
from tests.toys import generator, tiny_encoder

N = 40
IMAGE = PGD(12, 10)
NAMES = [check.__name__ for check in sanity_checks.CHECKS]
See = Callable[[Tensor], Tensor]


class Album(nn.Module):
    """A linear model that knows the caption `picture 3` of each of its images.

    `see` distorts the pixels before they are embedded, and with them the gradients; `tower`
    embeds them instead of the linear map.
    """

    image_size = 16

    def __init__(
        self,
        pixels: Tensor,
        seed: int = 0,
        see: See = lambda pixels: pixels,
        tower: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.see, self.tower = see, tower
        shared, own = (torch.randn(768, 16, generator=generator(s)) / 56 for s in (0, seed))
        self.weight = nn.Parameter(shared + own)
        with torch.no_grad():
            self.known = self.encode_image(pixels)

    @property
    def device(self) -> torch.device:
        return self.weight.device

    @property
    def logit_scale(self) -> Tensor:
        return torch.tensor(20.0)

    def encode_image(self, pixels: Tensor) -> Tensor:
        if self.tower is not None:
            return self.tower.encode_image(pixels)
        seen = (self.see(pixels) - 0.5).flatten(1) @ self.weight
        return nn.functional.normalize(seen, dim=1)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        words = [text.split(" ")[1] for text in texts]
        known = [self.known[int(w)] if w.isdigit() else torch.ones(16) / 4 for w in words]
        return torch.stack(known)


def album_pairs(counts: Sequence[int] = (1, 2) * (N // 2)) -> ImageTextPairs:
    images = torch.randint(256, (len(counts), 3, 16, 16), generator=generator(5)).byte()
    own = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    captions = tuple(f"picture {i}" for i in own.tolist())
    ids = tuple(map(str, range(len(counts))))
    return ImageTextPairs("album", "test", ImageTensor(images), captions, own, ids)


PAIRS = album_pairs()
TABLES = {
    "other": [[Edit(1, str((i + j) % N)) for j in (0, 1, 2)] for i in PAIRS.image_of.tolist()]
}


def album(seed: int = 0, see: See = lambda pixels: pixels) -> Album:
    return Album(PAIRS.pixels(), seed, see).eval()


def rounded(pixels: Tensor) -> Tensor:
    """Sixteen levels: the gradient of rounding is zero."""
    return (pixels * 15).round() / 15


def shattered(pixels: Tensor) -> Tensor:
    """A ripple far below the budget whose slope drowns the picture's own."""
    return pixels + 0.002 * torch.sin(5000 * pixels)


def subject(encoder: Album | None = None, **changes: object) -> SanitySubject:
    gallery = Gallery(PAIRS.pixels(), PAIRS.captions, PAIRS.relevance(), PAIRS.image_of)
    given = {"seed": 3, "apgd_steps": 10, "n_boot": 2000, **changes}
    return SanitySubject(encoder or album(), gallery, IMAGE, **given)  # type: ignore[arg-type]


def judged(encoder: Album, **changes: object) -> dict[str, Check]:
    given = {"image": IMAGE, "seed": 3, "apgd_steps": 10, **changes}
    found = sanity(encoder, PAIRS, **given)  # type: ignore[arg-type]
    return {check.name: check for check in verdicts({"album": found})["album"]}


def plain_recall(encoder: Album, pixels: Tensor, captions: Sequence[str] | None = None) -> float:
    """Mean of TR@1 and IR@1 in points, one query at a time."""
    captions = PAIRS.captions if captions is None else captions
    with torch.no_grad():
        score = encoder.encode_image(pixels) @ encoder.encode_text(captions).T
    relevant = PAIRS.relevance()
    shares = []
    for table, right in ((score, relevant), (score.T, relevant.T)):
        hits = 0
        for row, true in zip(table, right, strict=True):
            wrong = row[~true]
            hits += bool(row[true].max() > wrong.max() + 1e-6)
        shares.append(hits / len(table))
    return 50 * sum(shares)


def attacked(encoder: Album, attack: PGD) -> float:
    gallery = Gallery(PAIRS.pixels(), PAIRS.captions, PAIRS.relevance(), PAIRS.image_of)
    return plain_recall(encoder, pgd_attack(encoder, gallery, attack, generator=generator(3)))


# --- what is caught and what passes ----------------------------------------------------------


def test_an_ordinary_model_passes_every_check() -> None:
    seen: list[str] = []
    found = judged(album(), tables=TABLES, source=album(1), on_check=seen.append)
    assert seen == list(found) == NAMES
    assert {name: check.verdict for name, check in found.items()} == dict.fromkeys(NAMES, "passed")
    assert found["zero_budget"].numbers["clean"] == 100
    assert found["random_noise"].numbers["attack"] < 60  # the attack did something


def test_a_small_vision_transformer_passes_too() -> None:
    encoder, source = (Album(PAIRS.pixels(), tower=tiny_encoder(seed)).eval() for seed in (0, 1))
    found = judged(encoder, source=source)
    assert {check.verdict for check in found.values()} == {"passed"}
    assert found["zero_budget"].numbers["clean"] == 100
    assert found["random_noise"].numbers["attack"] < 60


def test_gradients_killed_by_rounding_are_caught() -> None:
    found = judged(album(see=rounded), source=album())
    assert found["gradients"].verdict == "violated"
    assert found["gradients"].numbers["zero gradients"] == 100
    assert found["transfer"].verdict == "violated"


def test_gradients_that_are_not_finite_are_caught() -> None:
    found = judged(album(see=lambda pixels: pixels + 0 * (pixels - pixels.detach()).sqrt()))
    assert found["gradients"].verdict == "violated"
    assert found["gradients"].numbers["non-finite gradients"] == 100


def test_shattered_gradients_are_caught_by_transfer_although_none_is_zero() -> None:
    found = judged(album(see=shattered), source=album())
    assert found["gradients"].verdict == "passed"
    assert found["transfer"].verdict == "violated"


def test_a_model_that_answers_differently_each_time_fails_the_exact_check() -> None:
    draw = generator(9)
    found = judged(album(see=lambda p: p + 0.3 * torch.randn(p.shape, generator=draw)))
    check = found["zero_budget"]
    assert check.exact and check.verdict == "violated" and check.p_adjusted is None
    assert check.estimate_points > 0


def test_an_attack_that_stops_too_early_is_caught_by_apgd() -> None:
    weak = dataclasses.replace(IMAGE, step_255=0.05)
    found = judged(album(), image=weak)
    assert found["apgd"].verdict == "violated"
    assert found["more_steps"].verdict == "passed"  # more steps help the attacker, as they should


# --- the numbers behind a check --------------------------------------------------------------


def test_zero_budget_reproduces_clean_recall_exactly() -> None:
    check = sanity_checks.zero_budget(subject())
    clean = plain_recall(album(), PAIRS.pixels())
    expected = {"clean": clean, "eps 0/255": clean, "queries of another rank": 0.0}
    assert check.numbers == expected
    assert (check.exact, check.p_value, check.estimate_points) == (True, None, 0.0)


@pytest.mark.parametrize(
    ("name", "high", "low"),
    [
        ("more_steps", ("40 steps", PGD(12, 40)), ("10 steps", IMAGE)),
        ("restarts", ("runs: 1", IMAGE), ("runs: 5", PGD(12, 10, n_restarts=5))),
        ("apgd", ("PGD", IMAGE), ("APGD", APGD(12, 10))),
    ],
)
def test_a_check_compares_the_recalls_of_two_attacks(
    name: str, high: tuple[str, PGD], low: tuple[str, PGD]
) -> None:
    check = getattr(sanity_checks, name)(subject())
    expected = {label: attacked(album(), attack) for label, attack in (high, low)}
    assert check.numbers == pytest.approx(expected)
    assert check.estimate_points == pytest.approx(expected[high[0]] - expected[low[0]])


def test_more_budget_reports_the_worse_of_its_two_comparisons() -> None:
    found = subject()
    check = sanity_checks.more_budget(found)
    recall = [attacked(album(), PGD(eps, 10)) for eps in (12, 24, 48)]
    assert list(check.numbers.values()) == pytest.approx(recall)
    rises = recall[1] - recall[0], recall[2] - recall[1]
    assert min(abs(check.estimate_points - rise) for rise in rises) < 1e-9


def test_the_step_of_a_larger_budget_grows_with_it() -> None:
    given = sanity_checks._with_eps(PGD(4, 10, step_255=1), 16)
    assert given.step_255 == 4
    assert sanity_checks._with_eps(IMAGE, 16) == PGD(16, 10)


def test_huge_budget_is_compared_with_chance() -> None:
    check = sanity_checks.huge_budget(subject())
    # one or two right captions of 60 per image; one right image of 40 per caption
    chance = 50 * ((1 / 60 + 2 / 60) / 2 + 1 / 40)
    recall = attacked(album(), PGD(64, 10))
    assert check.numbers == pytest.approx({"eps 64/255": recall, "chance": chance})
    assert check.estimate_points == pytest.approx(recall - chance)


def test_noise_is_a_corner_of_the_ball() -> None:
    check = sanity_checks.random_noise(subject())
    draw = torch.randint(2, (N, 3, 16, 16), generator=generator(3))
    noisy = torch.where(draw == 1, PAIRS.pixels() + 12 / 255, PAIRS.pixels() - 12 / 255).clamp(0, 1)
    assert check.numbers["noise"] == pytest.approx(plain_recall(album(), noisy))
    assert check.estimate_points == pytest.approx(check.numbers["attack"] - check.numbers["noise"])


def test_transfer_judges_the_images_of_the_source_on_the_model() -> None:
    check = sanity_checks.transfer(subject(source=album(1)))
    gallery = Gallery(PAIRS.pixels(), PAIRS.captions, PAIRS.relevance(), PAIRS.image_of)
    moved = pgd_attack(album(1), gallery, IMAGE, generator=generator(3))
    white_box = attacked(album(), IMAGE)
    assert check.numbers["transfer"] == pytest.approx(plain_recall(album(), moved))
    assert check.estimate_points == pytest.approx(white_box - check.numbers["transfer"])


def test_shuffled_captions_average_over_shuffles_of_all_captions() -> None:
    check = sanity_checks.shuffled_captions(subject())
    g, found = generator(3), []
    for _ in range(sanity_checks.N_SHUFFLES):
        order = torch.randperm(60, generator=g).tolist()
        captions = [PAIRS.captions[i] for i in order]
        found.append(plain_recall(album(), PAIRS.pixels(), captions))
    assert check.numbers["shuffled"] == pytest.approx(sum(found) / len(found))
    assert check.estimate_points == pytest.approx(
        check.numbers["shuffled"] - check.numbers["chance"]
    )


def test_random_edits_come_from_the_table_one_per_word() -> None:
    rows = [Edit(0, "a"), Edit(0, "b"), Edit(1, "c"), Edit(2, "d")]
    g = generator(0)
    for n_words in range(5):
        edited = sanity_checks._randomly_edited("x y z", rows, n_words, g).split(" ")
        changed = [word != old for word, old in zip(edited, "xyz", strict=True)]
        assert sum(changed) == min(n_words, 3)
        assert set(edited) <= set("xyzabcd")
    check = sanity_checks.random_edits(subject(tables=TABLES))
    # of three edits one leaves the picture's own number, the other two break the caption
    assert check.numbers["other: attack"] < check.numbers["other: random"] < 60


# --- interval, Holm, verdict -----------------------------------------------------------------


def ranks(seed: int, n_right: int) -> Outcomes:
    g = generator(seed)
    tr, ir = (torch.randperm(n, generator=g) >= n_right for n in (N, len(PAIRS.captions)))
    return Outcomes(tr.long(), ir.long())


def test_interval_and_p_value_are_those_of_the_paired_bootstrap() -> None:
    high, low = ranks(0, 30), ranks(1, 20)
    sides = {"high": [high], "low": [low]}
    found = subject().compare("x", "y", sides, [("high", "low")])
    expected = primary_difference(
        high, low, PAIRS.image_of, n_boot=2000, seed=3, level=0.9, threshold=0.02
    )
    assert found.estimate_points == pytest.approx(100 * expected.value)
    assert found.lower_points == pytest.approx(100 * expected.low)
    assert found.p_value == pytest.approx(expected.p_below)
    assert (found.p_smallest, found.n_images) == (1 / 2001, N)
    below = subject().compare("x", "y", {"high": [high]}, [("high", 0.25)])
    assert below.numbers["chance"] == 25
    assert below.estimate_points == pytest.approx(below.numbers["high"] - 25)


def test_two_comparisons_in_one_check_share_its_error() -> None:
    sides = {"a": [ranks(0, 30)], "b": [ranks(1, 20)], "c": [ranks(2, 5)]}
    first = subject().compare("x", "y", sides, [("a", "b")])
    second = subject().compare("x", "y", sides, [("b", "c")])
    both = subject().compare("x", "y", sides, [("a", "b"), ("b", "c")])
    assert first.p_value is not None and second.p_value is not None
    assert both.p_value == pytest.approx(2 * min(first.p_value, second.p_value))
    assert both.lower_points < second.lower_points
    assert both.estimate_points == pytest.approx(second.estimate_points)


def test_two_points_in_every_resample_are_no_violation() -> None:
    found = subject().compare("x", "y", {"all": [ranks(0, 60)]}, [("all", 0.98)])
    assert found.estimate_points == pytest.approx(2)
    assert found.p_value == 1


def made(name: str, p: float | None, estimate: float = 5.0, smallest: float = 1e-5) -> Check:
    exact = p is None
    return Check(name, "", {}, estimate, 3.0, p, None if exact else smallest, exact, 100)


def test_holm_runs_over_checks_and_models_and_leaves_exact_ones_out() -> None:
    per_model = {
        "a": [made("x", 0.001), made("zero", None, 0.0), made("y", 0.02)],
        "b": [made("x", 0.015), made("zero", None, 0.1), made("y", 0.6)],
    }
    found = verdicts(per_model)
    # sorted: 4 * 0.001, 3 * 0.015, 2 * 0.02 raised to 0.045, 0.6
    expected = {"a": [0.004, None, 0.045], "b": [0.045, None, 0.6]}
    adjusted = {model: [c.p_adjusted for c in checks] for model, checks in found.items()}
    assert adjusted == {model: pytest.approx(p) for model, p in expected.items()}
    assert [c.verdict for c in found["a"]] == ["violated", "passed", "violated"]
    assert [c.verdict for c in found["b"]] == ["violated", "violated", "passed"]
    assert verdicts({"b": per_model["b"]})["b"][0].p_adjusted == pytest.approx(0.03)
    assert per_model["a"][0].verdict == ""  # what was given stays as it was


def test_a_bootstrap_too_short_for_holm_is_refused() -> None:
    """50 checks with 1/1001 as the smallest p-value: 50/1001 < 0.05, and 51 are too many."""
    enough = {f"m{i}": [made("x", 0.5, smallest=1 / 1001)] for i in range(50)}
    assert len(enough) / 1001 <= ALPHA
    verdicts(enough)
    with pytest.raises(ValueError, match="Raise n_boot"):
        verdicts({**enough, "one more": [made("x", 0.5, smallest=1 / 1001)]})


def test_checks_survive_json_and_make_a_tidy_table() -> None:
    found = verdicts({"a": [made("x", 0.001), made("zero", None, 0.0)]})
    again = [Check(**json.loads(json.dumps(dataclasses.asdict(check)))) for check in found["a"]]
    assert again == found["a"]
    table = to_frame({"a": again, "b": [made("x", 0.5)]})
    assert table[["model", "check", "verdict"]].to_numpy().tolist() == [
        ["a", "x", "violated"],
        ["a", "zero", "passed"],
        ["b", "x", ""],
    ]
    assert list(to_frame({})) == list(table)


# --- what goes in ----------------------------------------------------------------------------


def test_the_first_images_bring_their_captions_and_their_rows_of_the_table() -> None:
    order = torch.randperm(len(PAIRS.captions), generator=generator(1))
    mixed = dataclasses.replace(
        PAIRS,
        captions=tuple(PAIRS.captions[i] for i in order.tolist()),
        image_of=PAIRS.image_of[order],
    )
    rows = TABLES["other"]
    tables = {"other": [rows[i] for i in order.tolist()]}
    kept = {"other": [row for row, i in zip(rows, PAIRS.image_of.tolist(), strict=True) if i < 9]}
    encoder = album()
    few = sanity(encoder, mixed, tables, image=IMAGE, seed=1, n_images=9, apgd_steps=3, n_boot=100)
    same = sanity(
        encoder, PAIRS.subset(range(9)), kept, image=IMAGE, seed=1, apgd_steps=3, n_boot=100
    )
    assert few == same
    assert {check.n_images for check in few} == {9}


def test_the_model_is_left_as_it_was() -> None:
    encoder = album()
    before = encoder.weight.detach().clone()
    sanity(encoder, PAIRS, image=IMAGE, apgd_steps=2, n_boot=100)
    assert torch.equal(encoder.weight, before)
    assert encoder.weight.grad is None and encoder.weight.requires_grad
    assert not encoder.training


def test_an_attack_without_a_random_start_gets_one_for_its_restarts() -> None:
    found = sanity(album(), PAIRS, image=PGD(4, 2, start="none"), apgd_steps=2, n_boot=100)
    assert "restarts" in [check.name for check in found]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": PGD(20)}, "0 < eps_255 <= 16"),
        ({"image": PGD(0)}, "0 < eps_255 <= 16"),
        ({"image": PGD(8, norm="l2")}, "L-infinity"),
        ({"image": PGD(4, 0)}, "at least one step"),
        ({"n_images": 0}, "n_images must be 1 or more"),
        ({"tables": {"typo": [[]]}}, "rows for 1 captions"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sanity(album(), PAIRS, **{"image": IMAGE, **changes})  # type: ignore[arg-type]


def test_a_missing_source_or_table_is_named() -> None:
    encoder = album()
    with pytest.raises(ValueError, match="the examined model itself"):
        sanity(encoder, PAIRS, image=IMAGE, source=encoder)
    with pytest.raises(ValueError, match="needs a source model"):
        sanity_checks.transfer(subject())
    with pytest.raises(ValueError, match="needs a table"):
        sanity_checks.random_edits(subject())
