from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from matlib.config import (
    PROFILES,
    Intervention,
    ProfileError,
    Run,
    load_profile,
    profile_names,
)

SMOKE = yaml.safe_load((PROFILES / "smoke.yaml").read_text())


def with_part(name: str, **changes: object) -> dict[str, object]:
    """The smoke profile's part of that name with changes."""
    return {name: {**SMOKE[name], **changes}}


def written(tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump({**SMOKE, **changes}))
    return path


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_is_valid_and_named_after_its_file(name: str) -> None:
    assert load_profile(name).name == name


def test_the_profiles_that_the_readme_speaks_of_exist() -> None:
    wanted = {"smoke", "demo", "demo-full", "flickr8k", "flickr30k", "flickr30k-check", "coco"}
    assert wanted <= set(profile_names())


def test_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(ProfileError, match=r"no profile 'dmeo'.*demo"):
        load_profile("dmeo")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epz": 3}, "epz"),
        ({"evaluation": {**SMOKE["evaluation"], "eps_255": 4 / 255}}, "divided by 255"),
        ({"evaluation": {**SMOKE["evaluation"], "eps_255": 128}}, "0 to 64"),
        ({"runs": [{"defence": "mta"}]}, "unknown defence 'mta'"),
        ({"runs": [{"defence": "mat+"}]}, "needs augmentation"),
        ({"runs": [{"defence": "mat", "augmentation": "captions"}]}, "takes no augmentation"),
        ({"finetune": {"n_steps": 3, "batch_size": 99, "lr": 1e-3}}, "larger than dataset.n_train"),
        ({"base": None}, "give `base`"),
        ({"inside_seeds": [0, 5]}, "inside_seeds must be some of seeds"),
        ({"transfer_rows": ["mta"]}, r"rows that `runs` has not: \['mta'\]"),
        ({"architectures": {"Bad/Name": {}}}, "architectures.Bad/Name"),
        (
            {"dataset": {**SMOKE["dataset"], "name": "flickr8k"}, "intervention": None},
            "needs the truth",
        ),
        ({"dataset": {**SMOKE["dataset"], "name": "flickr8k"}}, "dialled cannot be made from"),
        ({"reference": "mat+"}, "`reference` names the row of `techniques`"),
        ({"techniques": [{"defence": "mat"}, {"defence": "mat", "lr": 0.1}]}, "two different rows"),
        ({"techniques": [{"defence": "mat", "n_train": 99}]}, "n_train is more than"),
        ({"techniques": [{"defence": "mat", "strength": 1}]}, "are about added pairs"),
        ({"intervention": {"levels": [1, 0]}}, "levels rise from 0 to 1"),
        ({"intervention": {"seeds": [3]}}, "gains are paired by seed"),
        ({"generators": {"translators": ["one"]}}, "two models, there and back"),
        (
            {"sweeps": [{"defence": "mat+", "augmentation": "captions", "strength": 1}]},
            "captions has no strength",
        ),
        (
            {"sweeps": [{"defence": "mat+", "augmentation": "randaugment", "strength": 31}]},
            "at most 30",
        ),
        (
            {"sweeps": [{"defence": "mat+", "augmentation": "randaugment", "vendi": 2}]},
            "thins added captions",
        ),
        ({"sweeps": [{"defence": "mat+", "augmentation": "dialled"}]}, "needs dials"),
        ({"model": {"kind": "open_clip"}}, "needs model.name"),
        ({"techniques": [{"defence": "mat", "n_train": 7}]}, "n_train 7 is smaller than finetune"),
        (with_part("finetune", micro_batches=3), "8 does not divide into 3"),
        (with_part("finetune", micro_batches=8), "leave 1 pair each"),
        (with_part("base", micro_batches=5), "16 does not divide into 5"),
        (with_part("evaluation", unimodal_eps_255=300), "unimodal_eps_255: eps_255 .* 0 to 64"),
        (with_part("evaluation", unimodal_eps_255=4 / 255), "unimodal_eps_255: .*by 255"),
        (with_part("evaluation", curve_eps_255=[2, -1]), "curve_eps_255: eps_255 .* 0 to 64"),
        (with_part("evaluation", curve_eps_255=[float("nan")]), "curve_eps_255: .*got nan"),
        (with_part("evaluation", step_255=0), "evaluation.step_255: .*greater than 0"),
        (with_part("evaluation", step_255=float("inf")), "evaluation.step_255: .*finite"),
        (with_part("train_attack", step_255=-1), "train_attack.step_255: .*greater than 0"),
        (with_part("train_attack", step_255=float("nan")), "train_attack.step_255"),
    ],
)
def test_bad_profiles_are_refused_with_the_key(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ProfileError, match=message):
        load_profile(written(tmp_path, **changes))


def test_a_list_instead_of_keys_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("- a\n- b\n")
    with pytest.raises(ProfileError, match="expected keys and values"):
        load_profile(tmp_path / "p.yaml")


def test_limit_makes_a_study_partial_and_says_so() -> None:
    limited = load_profile("smoke", limit=5)
    assert limited.dataset.n_test == 5 and limited.limit == 5
    assert load_profile("smoke").limit == 0


def test_rows_are_named_by_their_options_and_the_experiment_has_every_setting() -> None:
    run = Run(defence="mat+", augmentation="eda", strength=0.3, n_variants=2)
    assert (run.row, run.technique, run.modality) == ("mat+.eda.n2.x0.3", "eda.n2.x0.3", "text")
    assert Run(defence="mat", n_train=500).row == "mat.t500"
    runs = Intervention(levels=(0, 0.5, 1)).runs()
    assert len({run.row for run in runs}) == 54
    assert runs[1].row == "mat+.dialled.text-a0-d0-s0.5"
