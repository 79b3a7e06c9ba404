from __future__ import annotations

from itertools import combinations, product
from pathlib import Path

import pytest
import yaml

from matlib.models.masked_lm_training import MaskedLMConfig
from matlib.models.small import SmallModel
from matlib.study.profile.parts import MaskedLanguageModel, Model, Training
from matlib.study.profile.profile import PROFILES, ProfileError, load_profile, profile_names
from matlib.study.profile.rows import Intervention, Run
from matlib.training.schedule import Schedule

SMOKE = yaml.safe_load((PROFILES / "smoke.yaml").read_text())
PHOTOGRAPHS = {**SMOKE["dataset"], "name": "flickr8k"}


def with_part(part: str, /, **changes: object) -> dict[str, object]:
    """The smoke profile's part of that name with changes."""
    return {part: {**SMOKE[part], **changes}}


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
        ({"battery_rows": ["mta"]}, r"battery_rows names rows that `runs` has not"),
        ({"architectures": {"Bad/Name": {}}}, "architectures.Bad/Name"),
        (
            {"dataset": PHOTOGRAPHS, "intervention": None, "other_tasks": None},
            "needs the truth",
        ),
        ({"dataset": PHOTOGRAPHS, "other_tasks": None}, "dialled cannot be made from"),
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
        (with_part("evaluation", curve_eps_255=[float("nan")]), "curve_eps_255.*got nan"),
        (with_part("evaluation", step_255=0), "evaluation.step_255: .*greater than 0"),
        (with_part("evaluation", step_255=float("inf")), "evaluation.step_255: .*finite"),
        (with_part("train_attack", eps_255=0), "train_attack: .*no attack"),
        (with_part("evaluation", eps_255=0), "evaluation: .*no attack"),
        (with_part("evaluation", pgd_steps=0), "evaluation.pgd_steps: .*equal to 1"),
        (with_part("train_attack", pgd_steps=0), "train_attack.pgd_steps: .*equal to 1"),
        (with_part("train_attack", n_words=0), "train_attack.n_words: .*equal to 1"),
        (with_part("train_attack", step_255=-1), "train_attack.step_255: .*greater than 0"),
        (with_part("train_attack", step_255=float("nan")), "train_attack.step_255"),
        (with_part("train_attack", threats=[]), "train_attack.threats: .*at least 1"),
        (with_part("evaluation", sga_scales=[0]), "sga_scales.0: .*greater than 0"),
        (with_part("evaluation", sga_scales=[0.01]), "leaves nothing of images of 32 px"),
        (with_part("evaluation", n_boot=10**30), "evaluation.n_boot: .*less than"),
        (with_part("model", image_width=0), "model.image_width: .*or equal to 1"),
        (with_part("model", text_layers=0), "model.text_layers: .*or equal to 1"),
        (with_part("model", image_width=10**9), "model.image_width: .*less than"),
        (with_part("model", head_width=48), "image_width 32 does not divide into heads"),
        (with_part("model", patch_size=64), "images of 32 px are too small for the model"),
        (with_part("model", name="ViT-B-16"), "give model.kind open_clip"),
        (with_part("masked_lm", width=30), "width 30 does not divide into 4 heads"),
        (with_part("masked_lm", layers=0), "masked_lm.layers: .*or equal to 1"),
        (with_part("base", lr=float("nan")), "base.lr: .*finite"),
        (with_part("base", n_steps=10**30), "base.n_steps: .*less than"),
        (with_part("base", mixed_precision=False), 'write a word such as "no" with quotes'),
        ({"name": "../../x"}, "name: String should match pattern"),
        (
            {"runs": [{"defence": "mat"}] * 2, "transfer_rows": [], "other_tasks": None},
            "runs has a row twice: mat",
        ),
        ({"architectures": {"a": {"image_tower": "convnet", "head_width": 3}}}, "architectures.a"),
    ],
)
def test_bad_profiles_are_refused_with_the_key(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ProfileError, match=message):
        load_profile(written(tmp_path, **changes))


TEXT = (PROFILES / "smoke.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "expected keys and values, got list"),
        ("", "expected keys and values, got nothing"),
        ("smoke", "expected keys and values, got str"),
        (f"{TEXT}\n---\n{TEXT}", "another document"),
        ("\tname: x", r"line 1: .*'\\t'"),
        ("name: !!python/object/apply:os.getcwd []", "line 1: .*python/object"),
        (f"{TEXT}\n1: 2\n", "p.yaml.* 1: Keys should be strings"),
        (f"{TEXT}\nname: other\n", "the key 'name' is there twice"),
        ("[" * 5000, "not readable as YAML"),
        (TEXT.replace("seeds: [0]", "seeds: []"), "p.yaml.* seeds: .*at least 1"),
        (TEXT.replace("seeds: [0]", "seeds: [0, 0]"), "seeds: each is expected once"),
        (TEXT.replace("seeds: [0]", "seeds: [yes]"), "seeds is a number or a text, got .True"),
        (TEXT.replace("seeds: [0]", f"seeds: [{2**31}]"), "seeds.0: .*less than 2147483648"),
        (TEXT.replace("minutes: 2", "minutes: .nan"), "minutes: .*finite"),
        (TEXT.replace("minutes: 2", "minutes: 2020-01-01"), "minutes: .*number"),
    ],
)
def test_yaml_that_is_no_profile_is_refused_in_one_line_that_names_the_file(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ProfileError, match=message) as refused:
        load_profile(tmp_path / "p.yaml")
    assert "\n" not in str(refused.value) and "p.yaml" in str(refused.value)


def test_models_at_relative_paths_are_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("mine", "work", "else"):
        (tmp_path / folder).mkdir()
    (tmp_path / "mine" / "lm").mkdir()
    (tmp_path / "work" / "w.pt").touch()
    monkeypatch.chdir(tmp_path / "work")
    mask = {"kind": "pretrained", "name": "./lm"}
    (tmp_path / "mine" / "hub" / "clip").mkdir(parents=True)
    (tmp_path / "mine" / "openai").mkdir()  # not the tag
    model = {"kind": "open_clip", "name": "ViT-B-16", "pretrained": "w.pt", "rest": "openai"}
    folder = {**model, "pretrained": "hub/clip", "rest": "./w.pt"}
    generators = {"captioner": "Salesforce/blip-image-captioning-base"}
    path = written(tmp_path / "mine", masked_lm=mask, model=model, generators=generators,
                   architectures={"other": folder})  # fmt: skip
    profile = load_profile("../mine/p.yaml")
    assert profile.masked_lm.name == str(tmp_path / "mine" / "lm")
    assert profile.model.pretrained == str(tmp_path / "work" / "w.pt")
    assert profile.model.rest == "openai"
    assert profile.architectures["other"].pretrained == str(tmp_path / "mine" / "hub" / "clip")
    assert profile.architectures["other"].rest == profile.model.pretrained
    assert profile.generators.captioner == generators["captioner"]
    monkeypatch.chdir(tmp_path / "else")
    with pytest.raises(ProfileError, match=r"model\.pretrained: there is no 'w\.pt' \(looked in"):
        load_profile(path)


def test_a_limit_in_the_profile_limits() -> None:
    limited = load_profile("smoke", limit=5)
    assert limited.limited(0) == limited and limited.limited(9) == limited
    assert limited.limited(3).dataset.n_test == 3


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


def test_in_a_latin_square_each_two_levels_of_two_dials_meet_once() -> None:
    experiment = Intervention(levels=(0, 0.5, 1), design="latin")
    points = [run.dials for run in experiment.trained()]
    assert len(points) == 18 and Intervention().trained() == Intervention().runs()
    for first, second in combinations(("alignment", "diversity", "shift"), 2):
        for modality in ("text", "image"):
            met = [(each.levels[first], each.levels[second])
                   for each in points if each and each.modality == modality]  # fmt: skip
            assert sorted(met) == [*product((0, 0.5, 1), repeat=2)]


def test_a_part_of_a_profile_has_the_defaults_of_what_it_becomes() -> None:
    assert Model().shape(64) == SmallModel(image_size=64)
    assert MaskedLanguageModel().training() == MaskedLMConfig()
    assert Training(n_steps=2, batch_size=4, lr=0.1).schedule() == Schedule(2, 4, 0.1)
    assert Training(n_steps=2, batch_size=4, lr=0.1).schedule(lr=0.2) == Schedule(2, 4, 0.2)
