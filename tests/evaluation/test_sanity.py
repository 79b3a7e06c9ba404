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
from matlib.attacks.gallery_images import JointAscent
from matlib.attacks.multimodal import pgd_attack
from matlib.attacks.pgd import PGD
from matlib.attacks.whole_gallery import gallery_attack
from matlib.attacks.word_substitution import WordSubstitution
from matlib.data.pairs import ImageTensor, ImageTextPairs
from matlib.evaluation import sanity_checks, sanity_judge
from matlib.evaluation.retrieval import Outcomes
from matlib.evaluation.sanity_checks import SANITY_COLUMNS, sanity, to_frame
from matlib.evaluation.sanity_subject import Check, SanitySubject
from matlib.evaluation.statistics import Stratum, bootstrap_contrast
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
    return SanitySubject(encoder or album(), gallery, **{"image": IMAGE, **given})  # type: ignore[arg-type]


def evaluated(encoder: Album, **changes: object) -> dict[str, Check]:
    given = {"image": IMAGE, "seed": 3, "apgd_steps": 10, "n_boot": 1000, **changes}
    found = sanity(encoder, PAIRS, **given)  # type: ignore[arg-type]
    return {check.name: check for check in found}


def violated(found: dict[str, Check]) -> list[str]:
    return [name for name, check in found.items() if check.verdict == "violated"]


def estimate(check: Check) -> float:
    """In points, of a check with one comparison."""
    ((points, _, _),) = check.gains.values()
    return points


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


def test_no_check_is_violated_by_an_ordinary_model() -> None:
    seen: list[str] = []
    found = evaluated(album(), tables=TABLES, source=album(1), on_check=seen.append)
    assert seen == list(found) == [name for name in NAMES if name not in ("own_loss", "universal")]
    assert violated(found) == []
    assert found["zero_budget"].verdict == found["huge_budget"].verdict == "passed"
    assert found["zero_budget"].numbers["clean"] == 100
    assert found["random_noise"].numbers["attack"] < 60  # the attack did something


def test_none_by_a_small_vision_transformer_either() -> None:
    encoder, source = (Album(PAIRS.pixels(), tower=tiny_encoder(seed)).eval() for seed in (0, 1))
    found = evaluated(encoder, source=source)
    assert violated(found) == []
    assert found["zero_budget"].numbers["clean"] == 100
    assert found["random_noise"].numbers["attack"] < 60


def test_gradients_killed_by_rounding_are_caught() -> None:
    found = evaluated(album(see=rounded), source=album())
    assert found["gradients"].verdict == "violated"
    assert found["gradients"].numbers["zero gradients"] == 100
    assert found["transfer"].verdict == "violated"


def test_gradients_that_are_not_finite_are_caught() -> None:
    found = evaluated(album(see=lambda pixels: pixels + 0 * (pixels - pixels.detach()).sqrt()))
    assert found["gradients"].verdict == "violated"
    assert found["gradients"].numbers["non-finite gradients"] == 100


def test_shattered_gradients_are_caught_by_transfer_although_none_is_zero() -> None:
    found = evaluated(album(see=shattered), source=album())
    assert found["gradients"].verdict == "passed"
    assert found["transfer"].verdict == "violated"


def test_a_model_that_answers_differently_each_time_fails_the_exact_check() -> None:
    draw = generator(9)
    found = evaluated(album(see=lambda p: p + 0.3 * torch.randn(p.shape, generator=draw)))
    check = found["zero_budget"]
    assert check.exact and check.verdict == "violated" and estimate(check) > 0


def test_an_attack_that_stops_too_early_is_caught_by_apgd() -> None:
    weak = dataclasses.replace(IMAGE, step_255=0.05)
    found = evaluated(album(), image=weak)
    assert found["apgd"].verdict == "violated"
    assert found["more_steps"].verdict != "violated"  # more steps help the attacker, as they should


# --- the numbers behind a check --------------------------------------------------------------


def test_zero_budget_reproduces_clean_recall_exactly() -> None:
    check = sanity_checks.zero_budget(subject())
    clean = plain_recall(album(), PAIRS.pixels())
    expected = {"clean": clean, "eps 0/255": clean, "queries of another rank": 0.0}
    assert check.numbers == expected
    assert (check.exact, check.gains) == (True, {"queries of another rank": [0.0, 0.0, 0.0]})


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
    assert estimate(check) == pytest.approx(expected[high[0]] - expected[low[0]])


def test_more_budget_reports_both_of_its_comparisons() -> None:
    found = subject()
    check = sanity_checks.more_budget(found)
    recall = [attacked(album(), PGD(eps, 10)) for eps in (12, 24, 48)]
    assert list(check.numbers.values()) == pytest.approx(recall)
    rises = [recall[1] - recall[0], recall[2] - recall[1]]
    assert [points for points, _, _ in check.gains.values()] == pytest.approx(rises)


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
    assert estimate(check) == pytest.approx(recall - chance)


def test_noise_is_a_corner_of_the_ball() -> None:
    check = sanity_checks.random_noise(subject())
    draw = torch.randint(2, (N, 3, 16, 16), generator=generator(3))
    noisy = torch.where(draw == 1, PAIRS.pixels() + 12 / 255, PAIRS.pixels() - 12 / 255).clamp(0, 1)
    assert check.numbers["noise"] == pytest.approx(plain_recall(album(), noisy))
    assert estimate(check) == pytest.approx(check.numbers["attack"] - check.numbers["noise"])


def test_transfer_judges_the_images_of_the_source_on_the_model() -> None:
    check = sanity_checks.transfer(subject(source=album(1)))
    gallery = Gallery(PAIRS.pixels(), PAIRS.captions, PAIRS.relevance(), PAIRS.image_of)
    moved = pgd_attack(album(1), gallery, IMAGE, generator=generator(3))
    white_box = attacked(album(), IMAGE)
    assert check.numbers["transfer"] == pytest.approx(plain_recall(album(), moved))
    assert estimate(check) == pytest.approx(white_box - check.numbers["transfer"])


def test_shuffled_captions_average_over_shuffles_of_all_captions() -> None:
    check = sanity_checks.shuffled_captions(subject())
    g, found = generator(3), []
    for _ in range(sanity_checks.N_SHUFFLES):
        order = torch.randperm(60, generator=g).tolist()
        captions = [PAIRS.captions[i] for i in order]
        found.append(plain_recall(album(), PAIRS.pixels(), captions))
    assert check.numbers["shuffled"] == pytest.approx(sum(found) / len(found))
    assert estimate(check) == pytest.approx(check.numbers["shuffled"] - check.numbers["chance"])


def test_random_edits_come_from_the_table_one_per_word() -> None:
    rows = [Edit(0, "a"), Edit(0, "b"), Edit(1, "c"), Edit(2, "d")]
    g = generator(0)
    for n_words in range(5):
        edited = sanity_judge.randomly_edited("x y z", rows, n_words, g).split(" ")
        changed = [word != old for word, old in zip(edited, "xyz", strict=True)]
        assert sum(changed) == min(n_words, 3)
        assert set(edited) <= set("xyzabcd")
    check = sanity_judge.random_words(subject(tables=TABLES))
    # of three edits one leaves the picture's own number, the other two break the caption
    searched = check.numbers["other: by importance"], check.numbers["other: words"]
    assert max(searched) < check.numbers["other: random"] < 60
    assert list(check.gains) == ["other: by importance - other: random",
                                 "other: words - other: random"]  # fmt: skip


# --- the judge that decides -------------------------------------------------------------------


def test_the_gallery_attacker_is_compared_with_twice_itself_half_its_edits_and_the_pairwise() -> (
    None
):
    found = subject(tables=TABLES, image=PGD(4, 2))
    checks = [sanity_judge.stronger_gallery(found), sanity_judge.fewer_edits(found),
              sanity_judge.pairwise(found)]  # fmt: skip
    assert len({next(iter(check.numbers.values())) for check in checks}) == 1  # one and the same
    gallery, table = found.gallery, TABLES["other"]
    twice = gallery_attack(
        found.encoder, gallery, table, JointAscent(4, 12), WordSubstitution(),
        generator=generator(3), n_rounds=4, n_restarts=2,
    )  # fmt: skip
    assert checks[0].numbers["other: twice"] == pytest.approx(plain_recall(album(), *twice))
    half = gallery_attack(
        found.encoder, gallery, [row[::2] for row in table], JointAscent(4, 6),
        WordSubstitution(), generator=generator(3),
    )  # fmt: skip
    assert checks[1].numbers["other: half"] == pytest.approx(plain_recall(album(), *half))
    for check in checks:
        values = list(check.numbers.values())
        assert estimate(check) == pytest.approx(values[0] - values[1])


def test_a_search_that_misses_edits_is_caught_by_half_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A gallery attacker that finds nothing once there are three edits a caption."""
    real = sanity_judge.gallery_attack

    def blind(encoder: Album, gallery: Gallery, table: object, *rest: object, **more: object):  # type: ignore[no-untyped-def]
        is_all = len(table[0]) == 3  # type: ignore[index]
        return real(encoder, gallery, [[] for _ in gallery.captions] if is_all else table, *rest,  # type: ignore[arg-type]
                    **more)  # fmt: skip

    monkeypatch.setattr(sanity_judge, "gallery_attack", blind)
    check = sanity_judge.fewer_edits(subject(tables=TABLES, image=PGD(0.5, 1)))
    assert check.verdict == "violated"


def test_words_of_another_model_are_judged_on_this_one() -> None:
    check = sanity_judge.words_of_another(subject(tables=TABLES, source=album(1)))
    assert check.numbers["other: words"] <= check.numbers["other: of another"]


# --- interval, verdict ------------------------------------------------------------------------


def ranks(seed: int, n_right: int) -> Outcomes:
    g = generator(seed)
    tr, ir = (torch.randperm(n, generator=g) >= n_right for n in (N, len(PAIRS.captions)))
    return Outcomes(tr.long(), ir.long())


def test_the_bounds_are_those_of_the_paired_bootstrap() -> None:
    high, low = ranks(0, 30), ranks(1, 20)
    found = subject().compare("x", "y", {"high": [high], "low": [low]}, [("high", "low")])
    pair = Stratum(((1.0, high), (-1.0, low)), PAIRS.image_of)
    expected = bootstrap_contrast([pair], n_boot=2000, seed=3, level=0.9)
    points = [100 * x for x in (expected.value, expected.low, expected.high)]
    assert found.gains == {"high - low": pytest.approx(points)}
    below = subject().compare("x", "y", {"high": [high]}, [("high", 0.25)])
    assert below.numbers["chance"] == 25
    assert estimate(below) == pytest.approx(below.numbers["high"] - 25)


def made(name: str, *gains: tuple[float, float, float], exact: bool = False) -> Check:
    return Check(name, "", {}, {str(i): list(g) for i, g in enumerate(gains)}, exact, 100)


def test_a_verdict_follows_from_the_bounds_of_all_comparisons() -> None:
    passed, wide, above = (0.0, -1.0, 1.9), (0.0, -1.0, 2.1), (3.0, 2.1, 4.0)
    assert made("x", passed).verdict == "passed"
    assert made("x", passed, wide).verdict == "open"
    assert made("x", passed, wide, above).verdict == "violated"
    assert made("zero", (0.0, 0.0, 0.0), exact=True).verdict == "passed"
    assert made("zero", (0.1, 0.1, 0.1), exact=True).verdict == "violated"


def test_checks_survive_json_and_make_a_tidy_table() -> None:
    found = [made("x", (1.0, 0.0, 1.5), (3.0, 2.5, 4.0)), made("zero", (0.0, 0.0, 0.0), exact=True)]
    again = [Check(**json.loads(json.dumps(dataclasses.asdict(check)))) for check in found]
    assert again == found
    table = to_frame({"a": again, "b": [made("x", (0.0, -9.0, 9.0))]})
    assert table[
        ["model", "check", "comparison", "upper_points", "verdict"]
    ].to_numpy().tolist() == [
        ["a", "x", "1", 4.0, "violated"],
        ["a", "zero", "0", 0.0, "passed"],
        ["b", "x", "0", 9.0, "open"],
    ]
    assert list(to_frame({})) == list(SANITY_COLUMNS)


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
    with pytest.raises(ValueError, match="needs a source model"):
        sanity_judge.words_of_another(subject(tables=TABLES))
    with pytest.raises(ValueError, match="needs a table"):
        sanity_judge.random_words(subject())


def test_an_attack_by_the_defences_own_loss_is_a_check_and_no_row() -> None:
    """One that undoes every caption leaves nothing, so the gallery attacker is too weak."""

    def own(encoder: object, gallery: Gallery, *_: object) -> tuple[Tensor, list[str]]:
        return gallery.pixels, ["picture none" for _ in gallery.captions]

    weak = {"tables": TABLES, "image": PGD(0.5, 1)}
    tables = {"none": [[] for _ in PAIRS.captions]}
    found = subject(**{**weak, "tables": tables}, own=own)  # type: ignore[arg-type]
    check = sanity_judge.own_loss(found)
    assert check.numbers["none: own loss"] < 5 and check.verdict == "violated"
    with pytest.raises(ValueError, match="own loss"):
        sanity_judge.own_loss(subject(tables=TABLES))


def test_gradients_that_vanish_at_the_judged_images_do_not_hide_from_what_was_learnt() -> None:
    """The picture is seen through a wall in the judge's images alone; others show the way."""
    judged_images = PAIRS.pixels()

    def walled(pixels: Tensor) -> Tensor:
        is_judged = len(pixels) == len(judged_images)
        return pixels.detach() + 0 * pixels if is_judged else pixels

    first = PAIRS.subset(range(20))
    train = Gallery(first.pixels(), first.captions, first.relevance(), first.image_of)
    encoder = album(see=walled)
    found = subject(encoder, train=train, image=PGD(16, 10))
    check = sanity_checks.universal(found)
    assert found.report.n_images_vanished == N
    assert check.numbers["universal"] < check.numbers["attack"] - 5
    assert check.verdict == "violated"
    with pytest.raises(ValueError, match="other images"):
        sanity_checks.universal(subject())


def test_a_hub_takes_captions_from_a_gallery_that_stands_still() -> None:
    check = sanity_checks.hub_image(subject(image=PGD(16, 10)))
    assert check.numbers["hub"] <= 100
    assert estimate(check) == pytest.approx(check.numbers["attack"] - check.numbers["hub"])
