"""What a GPU is asked to do is counted, exactly: the host may not come in its way again.

Counts, unlike times, are the same on every machine. A launch more than a bound costs a GPU some
microseconds; a wait costs it all that is queued, an upload a copy from unpinned memory.
"""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks.load import demo_shape, scenes_load
from benchmarks.step import StepSize, _pairs, _parts
from benchmarks.text import both_passes
from matlib.attacks.ascent import ScaleViews, attack_in_chunks
from matlib.attacks.multimodal import sga
from matlib.attacks.objectives import away_from_captions
from matlib.attacks.pgd import PGD
from matlib.attacks.scoring import embed_texts
from matlib.attacks.word_substitution import WordSubstitution
from matlib.defences.inner_attack import InnerAttack
from matlib.defences.table import defence
from matlib.models.chosen import ChosenTexts
from matlib.training.log import Bookkeeping
from matlib.training.loop import train
from matlib.training.schedule import Schedule
from matlib.training.step import Clock
from tests.pretend_accelerator import ACCELERATOR, Traffic, pretended
from tests.toys import random_edits, tiny_encoder, toy_gallery
from tests.training.toy_runs import INNER, toy_candidates, toy_data


def test_a_step_of_mat_asks_for_little_more_than_the_passes_that_it_needs() -> None:
    size = StepSize.demo(n_steps=1)
    load = scenes_load(2 * size.batch, 1, demo_shape())
    attack = InnerAttack(
        PGD(3.0, size.image_steps), WordSubstitution(search="exhaustive"), size.max_edits
    )
    seen: list[Traffic] = []
    with pretended() as traffic:
        load.encoder.to(ACCELERATOR)
        books = Bookkeeping(on_row=lambda _: seen.append(traffic.copy()))
        train(
            load.encoder, _pairs(load), defence("mat"), Schedule(3, size.batch, 1e-6), seed=0,
            inner=attack, candidates=dict(zip(load.captions, load.table, strict=True)),
            books=books,
        )  # fmt: skip
        step = seen[2].since(seen[1])
        load = replace(load, pixels=load.pixels.to(ACCELERATOR))
        needed = 0
        for part in _parts(load, size).values():
            before = traffic.launches
            part()
            needed += traffic.launches - before
    assert step.launches <= 1.25 * needed
    assert step.waits <= 1  # for the loss
    # images, seeds, the edited captions as a tree, and as tokens beside the order of their edits
    assert step.uploads <= 4


def test_a_clock_waits_for_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    marks: list[Any] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: str) -> None:
            self.place = len(marks)
            marks.append(stream)

        def elapsed_time(self, end: Any) -> float:
            return 1000.0 * (end.place - self.place)

    def refused(*_: Any) -> None:
        raise AssertionError("the host waited")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "synchronize", refused)
    clock = Clock(torch.device("cuda:1"))
    attack, began = clock.timed(len, "text"), clock.now()
    assert attack([1, 2]) + attack([1]) == 3
    clock.add("attack", began)
    assert clock.read() == {"text": 2.0, "attack": 5.0} and clock.read() == {}
    assert set(marks) == {"stream of cuda:1"}


def test_chosen_captions_are_read_once_and_only_by_their_own_model() -> None:
    encoder, texts = tiny_encoder(), ["a red star", "a circle", "two blue squares"]
    rows, tokens = torch.tensor([2, 0]), encoder.tokenize(texts)
    with pretended() as traffic:
        encoder.to(ACCELERATOR)
        chosen = ChosenTexts(
            texts, rows.to(ACCELERATOR), tokens.to(ACCELERATOR), encoder.tokenize
        )  # fmt: skip
        before = traffic.copy()
        found = encoder.encode_text(chosen)
        assert traffic.since(before).waits == 0 and len(chosen) == 2
        expected = encoder.encode_text([texts[2], texts[0]])
        torch.testing.assert_close(found.detach().cpu(), expected.detach().cpu())
        before = traffic.copy()
        assert [*chosen] == [texts[2], texts[0]] and chosen[:1] == [texts[2]]
        assert traffic.since(before).waits == 1
        chosen.tokenize = len  # type: ignore[assignment]
        assert torch.equal(encoder.encode_text(chosen).cpu(), expected.cpu())


def test_a_text_attack_waits_once_in_each_pass() -> None:
    load = scenes_load(32, 5, demo_shape())
    expected = both_passes(load, load.guides())
    with pretended() as traffic:
        load.encoder.to(ACCELERATOR)
        guides, before = load.guides(), traffic.copy()
        found = both_passes(load, guides)
        asked = traffic.since(before)
    assert found == expected and found[0] != load.captions
    assert asked.waits <= 2 and asked.uploads <= 6 and asked.launches <= 842 // 2


def test_noise_of_views_is_never_sent() -> None:
    load = scenes_load(4, 1, demo_shape())

    def asked(n_steps: int, views: Any) -> Traffic:
        before = traffic.copy()
        attack_in_chunks(
            PGD(2.0, n_steps),
            load.encoder,
            pixels,
            lambda rows: away_from_captions(text, own[rows]),
            generator=torch.Generator().manual_seed(0),
            views=views,
        )
        return traffic.since(before)

    with pretended() as traffic:
        load.encoder.to(ACCELERATOR)
        pixels = load.pixels.to(ACCELERATOR)
        text = embed_texts(load.encoder, load.captions)
        own = torch.eye(4, dtype=torch.bool).to(ACCELERATOR)
        asked(1, ScaleViews())  # the table of quantiles is sent once in a process
        few, many = asked(1, ScaleViews()), asked(3, ScaleViews())
    assert few.uploads == many.uploads == 1  # a seed per image
    assert few.waits == many.waits == 1  # are the pixels in [0, 1]?


def n_tensors() -> int:
    gc.collect()
    return sum(type(found) in (torch.Tensor, torch.nn.Parameter) for found in gc.get_objects())


def test_no_tensor_is_left_behind_by_a_judging_or_a_training() -> None:
    encoder, gallery, data = tiny_encoder(), toy_gallery([2, 1, 3]), toy_data()
    table, schedule = random_edits(list(gallery.captions)), Schedule(2, 4, 1e-4)

    def once() -> int:
        drawn = torch.Generator().manual_seed(0)
        sga(encoder, gallery, table, PGD(4.0, 2), WordSubstitution(), generator=drawn)
        train(
            encoder, data, defence("mat"), schedule, seed=0, inner=INNER,
            candidates=toy_candidates(data),
        )  # fmt: skip
        return n_tensors()

    once()  # what is made once in a process
    assert once() == once() == once()
