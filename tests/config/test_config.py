"""A run's settings: presets, a file, --set, and one clear line for whatever cannot be used."""

from __future__ import annotations

import dataclasses
import json

import pytest

from gpupipe import config
from gpupipe.config import ConfigError, reading
from gpupipe.runtime.errors import UserError
from gpupipe.targets import triple_barrier
from gpupipe.workloads import equity
from gpupipe.workloads.equity import make
from gpupipe.workloads.equity import settings as equity_settings


def refused(words, *arguments, **options):
    with pytest.raises(ConfigError, match=words) as caught:
        make(*arguments, **options)
    assert isinstance(caught.value, UserError) and "\n" not in str(caught.value)


def test_balanced_is_the_default_and_every_preset_has_its_name():
    assert make() == make("balanced") == reading.start(equity.catalogue(), "balanced")
    assert [make(name).preset for name in config.PRESETS] == ["fast", "balanced", "quality"]
    assert make("fast").joint.rounds < make("balanced").joint.rounds < make("quality").joint.rounds


def test_what_the_issue_promises_is_the_default():
    balanced = make()
    assert balanced.labels.horizons == (1, 2, 5) and balanced.labels.thresholds == (0.05, 0.10)
    assert balanced.training.models == equity.DEFAULT_MODELS
    assert (
        len(equity.DEFAULT_MODELS) == 6 and balanced.training.pool == "all" and balanced.training.class_weight == "none"
    )


def test_the_rules_are_those_of_the_labels():
    assert (equity_settings.RULES, equity_settings.WINDOWS) == (triple_barrier.RULES, triple_barrier.WINDOWS)


def test_settings_win_over_the_file_and_keywords_over_both(tmp_path):
    file = tmp_path / "gpupipe.toml"
    file.write_text(
        'preset = "fast"\nseed = 7\n[training]\nmax_bin = 100\nmodels = ["linear", "xgb_hist"]\n[joint]\nrounds = 5\n'
    )
    assert make(file=file) == make(
        "fast", seed=7, training__max_bin=100, training__models=("linear", "xgb_hist"), joint__rounds=5
    )
    assert make("quality", file).preset == "quality"
    assert make("quality", file).hist == make("quality").hist and make("quality", file).joint.rounds == 5
    both = make(file=file, settings=["training.max_bin=50", "training.max_bin = 51"], seed=9, joint__rounds=None)
    assert (both.training.max_bin, both.seed, both.joint.rounds) == (51, 9, 5)


@pytest.mark.parametrize(
    "text, key, value",
    [
        ("labels.horizons=1,3,10", "labels.horizons", (1, 3, 10)),
        ("labels.horizons=[1, 3]", "labels.horizons", (1, 3)),
        ("labels.horizons=4", "labels.horizons", (4,)),
        ("labels.thresholds=0.05,0.1", "labels.thresholds", (0.05, 0.1)),
        ("training.models=linear,xgb_joint", "training.models", ("linear", "xgb_joint")),
        ("training.models='linear'", "training.models", ("linear",)),
        ("training.pool=none", "training.pool", "none"),
        ("joint.l2=3", "joint.l2", 3.0),
        ("split.train=0.5", "split.train", 0.5),
        ("seed=11", "seed", 11),
        ("features.names=momentum,rsi_*", "features.names", ("momentum", "rsi_*")),
    ],
)
def test_values_as_the_command_line_writes_them(text, key, value):
    read = make(settings=[text])
    for name in key.split("."):
        read = getattr(read, name)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    "words, arguments, options",
    [
        (r"unknown preset 'fsat'; did you mean 'fast'\?", ("fsat",), {}),
        (r"unknown preset 'zzz'; known: fast, balanced, quality", ("zzz",), {}),
        (r"'training.max_bins'; did you mean 'training.max_bin'\?", (), {"settings": ["training.max_bins=3"]}),
        (r"'max_bin'; did you mean 'training.max_bin'\?", (), {"settings": ["max_bin=3"]}),
        (r"'trainin.pool'; did you mean 'training.pool'\?", (), {"settings": ["trainin.pool=none"]}),
        (r"unknown configuration key 'training'", (), {"settings": ["training=3"]}),
        (r"'sed'; did you mean 'seed'\?", (), {"sed": 3}),
        (r"'joint.round'; did you mean 'joint.rounds'\?", (), {"joint__round": 3}),
        (r"--set 'training.max_bin': expected section.field=value", (), {"settings": ["training.max_bin"]}),
        (r"preset is chosen with --preset", (), {"settings": ["preset=fast"]}),
        (r"training.max_bin = 3.5 is a float, expected int", (), {"settings": ["training.max_bin=3.5"]}),
        (r"training.max_bin = 'many' is a str, expected int", (), {"settings": ["training.max_bin=many"]}),
        (r"training.max_bin = True is a bool, expected int", (), {"settings": ["training.max_bin=true"]}),
        (r"joint.l2 = 'x' is a str, expected float", (), {"settings": ["joint.l2=x"]}),
        (r"joint.l2 = True is a bool, expected float", (), {"settings": ["joint.l2=true"]}),
        (r"training.pool = 1 is a int, expected str", (), {"settings": ["training.pool=1"]}),
        (r"labels.horizons = 2.5 is a float, expected int", (), {"labels__horizons": (1, 2.5)}),
        (r"unknown model family 'xgb_hits'; did you mean 'xgb_hist'\?", (), {"training__models": ("xgb_hits",)}),
        (r"the meta_learner needs at least one other", (), {"training__models": ("meta_learner",)}),
        (r"the meta_learner needs at least one other", (), {"training__models": ()}),
    ],
)
def test_what_cannot_be_used_names_the_key_and_the_nearest(words, arguments, options):
    refused(words, *arguments, **options)


@pytest.mark.parametrize(
    "setting",
    [
        "labels.horizons=0", "labels.horizons=[]", "labels.horizons=5,1", "labels.horizons=2,2", "labels.thresholds=0",
        "labels.thresholds=1.0", "labels.thresholds=nan", "labels.thresholds=0.1,0.05",
        "labels.thresholds=0.05,0.0500000001", "labels.rule=firsttouch", "labels.window=days", "split.train=1",
        "split.train=0.0", "split.validation=0.4", "split.embargo_bars=-1", "split.parts=1", "split.parts=21",
        "training.pool=some", "training.class_weight=yes", "training.min_positives=0", "training.min_rows=0",
        "training.max_bin=1", "training.max_bin=257", "training.early_stopping=-1", "seed=-1", "joint.rounds=0",
        "joint_sector.rounds=0", "hist.learning_rate=0", "leafwise.subsample=0", "hist.subsample=1.5",
        "hist.column_share=0", "hist.depth=0", "hist.l2=-1", "hist.min_child_weight=-1", "hist.l2=nan", "hist.l2=inf",
        "forest.trees=0", "forest.sector_trees=0", "forest.depth=0", "forest.subsample=2", "forest.column_share=-0.1",
        "forest.min_rows=-1", "forest.shrink_rows=-1", "forest.sector_shrink_rows=-1", "linear.l2=-1",
        "linear.sector_l2=nan", "linear.max_iterations=0", "linear.clip=0", "meta.l2=-1", "meta.sector_l2=-1",
        "meta.max_iterations=0", "meta.inputs=logits", "lightgbm.leaves=1", "lightgbm.min_rows=-1", "lightgbm.rounds=0",
        "lightgbm.subsample=0", "catboost.depth=0", "catboost.depth=17", "catboost.l2=-1", "catboost.column_share=0",
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_their_key(setting):
    key = setting.partition("=")[0]
    refused(f"^{key.replace('.', '[.]')} = .*expected ", settings=[setting])


def test_files_that_cannot_be_used(tmp_path):
    refused("nothing.toml' does not exist", file=tmp_path / "nothing.toml")
    refused("cannot be read as TOML", file=tmp_path)
    file = tmp_path / "gpupipe.toml"
    for text, words in (
        ("seed = ", "cannot be read as TOML"),
        ("[trainng]\nmax_bin = 3\n", r"'trainng.max_bin'; did you mean 'training.max_bin'"),
        ("[trainng]\n", r"unknown configuration key 'trainng'; did you mean 'training'"),
        ("[training.pool]\nx = 1\n", r"unknown configuration key 'training.pool.x'"),
        ('preset = ["fast"]\n', "unknown preset"),
        ("[training.models]\n", r"training.models = \{\} is a dict, expected str"),
        ('[training]\nmodels = [["linear"]]\n', r"training.models = \['linear'\] is a list, expected str"),
        ("seed = '3'\n", "seed = '3' is a str, expected int"),
    ):
        file.write_text(text)
        refused(words, file=file)
    file.write_bytes(b"\xff\xfe")
    refused("cannot be read as TOML", file=file)
    file.write_text("[training]\n# max_bin = 3\n")
    assert make(file=file) == make()


def test_the_digest_is_of_the_values_and_not_of_the_name():
    digests = {make(name).digest() for name in config.PRESETS}
    assert len(digests) == 3
    assert make().digest() == make("balanced").digest() == make().replace(preset="mine").digest()
    assert make("fast", seed=1).digest() != make("fast").digest()
    assert make(settings=["joint.l2=50"]).digest() == make(settings=["joint.l2=50.0"]).digest() == make().digest()


def leaves(node, prefix=""):
    for item in dataclasses.fields(node):
        value = getattr(node, item.name)
        if item.name == "sections":
            for name, section in value.items():
                yield from leaves(section, f"{name}__")
        elif dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{item.name}__")
        else:
            yield prefix + item.name, value


CHANGED = {
    "labels__rule": "first_touch", "labels__window": "calendar", "training__pool": "none",
    "training__class_weight": "balanced", "training__models": ("linear",), "labels__horizons": (1, 2),
    "labels__thresholds": (0.05,), "features__names": ("momentum",), "features__modules": ("mine.py",),
    "split__stacking": "forward", "split__walk_forward": 4, "split__window": "rolling", "split__cpcv": (6, 2),
    "training__sample_weight": "uniqueness", "ml__gradient_sampling": True, "ml__subsample": 0.2,
    "ml__use_quantile_dmatrix": False, "ml__use_rmm": False,
    "meta__inputs": "probabilities", "split__shares_until": "2014-12-31", "sequence__network": "fast",
    "training__place": ("linear=cpu",),
    "sequence__precision": "fp32", "sequence__scaling": "minmax", "sequence__return_weight": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("key, value", [leaf for leaf in leaves(make()) if leaf[0] not in ("preset", "tuned")])
def test_every_value_is_in_the_digest(key, value):
    other = CHANGED[key] if key in CHANGED else (value + 1 if isinstance(value, int) else value * 0.5)
    assert make(**{key: other}).digest() != make().digest()


def test_a_configuration_is_plain_data():
    plain = make("fast").as_dict()
    assert json.loads(json.dumps(plain)) == plain and plain["labels"]["horizons"] == [1, 2, 5]
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().seed = 3


TUNED = """
[tuned.energy.hist]
depth = 5
l2 = 2
[tuned.energy.label_5d_10pct.hist]
depth = 2
[tuned."my sector".leafwise]
leaves = 16
"""


def test_tuned_values_win_for_their_sector_and_label_alone(tmp_path):
    file, further = tmp_path / "tuned.toml", tmp_path / "more.toml"
    file.write_text(TUNED)
    plain, tuned = make("fast"), make("fast", file)
    assert tuned.for_label("hist", "energy", "label_1d_5pct") == dataclasses.replace(plain.hist, depth=5, l2=2.0)
    assert tuned.for_label("hist", "energy", "label_5d_10pct") == dataclasses.replace(plain.hist, depth=2, l2=2.0)
    assert tuned.for_label("leafwise", "my sector", "any") == dataclasses.replace(plain.leafwise, leaves=16)
    assert tuned.for_label("hist", "my sector", "any") == plain.hist
    assert tuned.for_label("leafwise", "energy", "x") == plain.leafwise
    assert tuned.hist == plain.hist and tuned.digest() != plain.digest()
    assert make("fast", file, ["hist.rounds=7"]).for_label("hist", "energy", "x").rounds == 7
    further.write_text('preset = "fast"\n[hist]\nrounds = 9\n[tuned.energy.hist]\nl2 = 4.0\n')
    both = make(file=[file, further])
    assert both.preset == "fast" and both.hist.rounds == 9
    assert both.for_label("hist", "energy", "x") == dataclasses.replace(plain.hist, rounds=9, depth=5, l2=4.0)
    assert json.loads(json.dumps(both.as_dict())) == both.as_dict()


@pytest.mark.parametrize(
    "words, text",
    [
        (r"tuned.energy.hist.depht'; did you mean 'depth'", "[tuned.energy.hist]\ndepht = 3"),
        (r"tuned.energy.hist.depth = 2.5 is a float, expected int", "[tuned.energy.hist]\ndepth = 2.5"),
        (r"tuned.energy.hist.l2 = -1.0: expected 0 or more", "[tuned.energy.hist]\nl2 = -1"),
        (r"tuned.energy.x.joint: expected a table \[tuned.energy.SECTION\]", "[tuned.energy.x.joint]\ndepth = 2"),
        (r"tuned.energy.depth", "[tuned.energy]\ndepth = 2"),
        (r"tuned.energy: expected tables like \[tuned.energy.hist\]", "[tuned]\nenergy = 2"),
        (r"tuned.3: expected tables", "tuned = 3"),
    ],
)
def test_a_tuned_table_that_cannot_be_used_says_where(tmp_path, words, text):
    (tmp_path / "tuned.toml").write_text(text)
    refused(words, file=tmp_path / "tuned.toml")


def test_tuned_values_come_by_file():
    refused("give them by --config", settings=["tuned.energy.hist.depth=3"])
    refused("give them by --config", settings=["tuned=3"])


def test_a_part_holds_what_is_declared_and_nothing_else():
    settings = equity.make("fast", settings=["linear.l2=3.0", "training.max_bin=16"])
    part = config.part_of(settings, ["linear", "training.max_bin"])
    assert part.linear == settings.linear and part.training.max_bin == 16 and part.seed == settings.seed
    assert list(config.values_of(settings, ["training.max_bin", "linear.l2"]).values()) == [16, 3.0]
    for read in (lambda: part.training.pool, lambda: part.hist.rounds, lambda: part.split.parts):
        with pytest.raises(AttributeError, match=r"declared are linear, training\.max_bin"):
            read()
    for name in ("nothing", "linear.nothing", "training.nothing"):
        with pytest.raises(KeyError, match="nothing"):
            config.part_of(settings, [name])
