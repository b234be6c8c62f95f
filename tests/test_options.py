from __future__ import annotations

import ast
import copy
import pickle
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import get_args

import pytest
import yaml

import bacpipe
from bacpipe.audio.windows import PADDING_MODES
from bacpipe.errors import BacpipeError, SettingsError
from bacpipe.options import (
    KEYS,
    Options,
    Padding,
    check_clustering,
    default_file,
    make_options,
    read_overrides,
    yaml_text,
)
from bacpipe.store.files import write_yaml
from tests.conftest import TinyModel, write_recording

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", KEYS)
def test_every_key_has_a_rule_a_default_and_a_comment(name: str) -> None:
    path = default_file(f"{name}.yaml")
    defaults = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert list(defaults) == list(KEYS[name])
    text = path.read_text(encoding="utf-8").splitlines()
    documented = False
    for line in text:
        if line.startswith("#"):
            documented = True
        elif not line.strip():
            documented = False
        elif line[0].isalpha():
            assert documented, f"{line} has no comment above it"


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("padding", "wrapp", "'wrap'"),
        ("device", "gpu", "cuda"),
        ("dim_reduction_model", "umapp", "'umap'"),
        ("evaluation_task", ["probbing"], "'probing'"),
        ("global_batch_size", 0, "from 1"),
        ("global_batch_size", "big", "auto"),
        ("classifier_threshold", 1.5, "0 to 1"),
        ("classifier_threshold", "high", "0 to 1"),
        ("hop", 0, "above 0"),
        ("train_ratio", 0, "above 0"),
        ("audio_suffixes", ["*.wav"], ".wav"),
        ("audio_suffixes", [], "at least one"),
        ("species_list", [], "at least one"),
        ("embed_parent_dir", "../elsewhere", "name of a folder"),
        ("bool_filter_labels", "yes", "true or false"),
        ("probe_configs", {"linear": 3}, "linear"),
        ("visualization_dimensions", 4, "2, 3"),
        ("audio_dir", 7, "folder"),
        ("classifier_threshold", "0,3", "Did you mean 0.3, with a point?"),
        ("hop", "1", "Did you mean 1, without quotes?"),
    ],
)
def test_impossible_values_name_key_value_and_what_is_allowed(
    setting: str, value: object, expected: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        make_options(**{setting: value})
    message = str(raised.value)
    assert setting in message
    assert repr(value) in message
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("global_batchsize", "global_batch_size"),
        ("devise", "device"),
        ("audio_dirr", "audio_dir"),
        ("Models", "models"),
    ],
)
def test_unknown_keys_are_errors_with_the_nearest_name(typed: str, meant: str) -> None:
    with pytest.raises(SettingsError, match=f"'{meant}'"):
        make_options(**{typed: 1})
    with pytest.raises(BacpipeError, match="no key"):
        setattr(bacpipe.settings, typed, 1)


def test_the_home_folder_may_be_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "rec").mkdir()
    (tmp_path / "rec" / "a.wav").touch()
    options = make_options(audio_dir="~/rec", main_results_dir=Path("~/results"))
    assert options.audio_dir == str(tmp_path / "rec")
    assert options.main_results_dir == str(tmp_path / "results")
    assert bacpipe.get_audio_files("~/rec") == [tmp_path / "rec" / "a.wav"]
    loader = bacpipe.Loader("~/rec", "birdnet", main_results_dir="~/results")
    assert loader.files == [tmp_path / "rec" / "a.wav"]
    assert loader.paths.dataset_path == tmp_path / "results" / "rec"
    # The names of folders may begin so, too.
    assert make_options(main_results_dir="~results").main_results_dir == "~results"


def test_variables_of_the_environment_are_what_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_DISK", str(tmp_path / "disk"))
    monkeypatch.setenv("PROJECT", "owls")
    file = tmp_path / "settings.yaml"
    for written in ("$MY_DISK/$PROJECT/x", "${MY_DISK}/owls/x", "%MY_DISK%/%PROJECT%/x"):
        file.write_text(f"main_results_dir: '{written}'\n", encoding="utf-8")
        read = read_overrides(file, "settings")
        assert read == {"main_results_dir": str(tmp_path / "disk" / "owls" / "x")}
    for key in ("main_results_dir", "model_base_path", "audio_dir", "sites"):
        with pytest.raises(
            SettingsError, match=r"no variable NO_SUCH, .* no folder \$NO_SUCH here"
        ):
            make_options(**{key: "$NO_SUCH/x"})
    # The names of folders may begin so, too, and recordings lie elsewhere.
    (tmp_path / "$NO_SUCH").mkdir()
    url = "s3://bucket/$PROJECT/x"
    assert make_options(audio_dir=url).audio_dir == url
    (tmp_path / "$PROJECT").mkdir()
    for name in ("$NO_SUCH/x", "$PROJECT/x", "costs $5", "a$PROJECT", "100%"):
        assert make_options(main_results_dir=name).main_results_dir == name
    assert make_options(recordings="$ELSEWHERE/a.wav").recordings == ("$ELSEWHERE/a.wav",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hop: 1e-1", 0.1),
        ("hop: 2E0", 2.0),
        ("hop: 1.5e+0", 1.5),
        ("hop: 010", None),
        ("hop: 1:30", None),
        ("hop: 1:30.5", None),
    ],
)
def test_numbers_are_those_that_people_write(
    tmp_path: Path, text: str, expected: float | None
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text + "\n", encoding="utf-8")
    if expected is not None:
        assert read_overrides(path, "settings") == {"hop": expected}
        return
    with pytest.raises(SettingsError, match="expected a number above 0 to") as raised:
        read_overrides(path, "settings")
    assert "Did you mean" not in str(raised.value)


def test_texts_that_look_like_numbers_stay_texts_in_what_is_written(tmp_path: Path) -> None:
    values = {"audio_dir": "1e5", "models": ("010", "1:30")}
    write_yaml(tmp_path / "config.yaml", values)
    assert read_overrides(tmp_path / "config.yaml", "config") == values


def test_ratios_that_leave_no_validation_data_are_refused() -> None:
    with pytest.raises(SettingsError, match="nothing to validate"):
        make_options(train_ratio=0.8, test_ratio=0.2)


def test_namespaces_are_read_at_call_time_and_arguments_win(restored_settings: None) -> None:
    bacpipe.settings.padding = "reflect"
    bacpipe.config.models = "mix2"
    assert make_options().padding == "reflect"
    assert make_options().models == ("mix2",)
    assert make_options(padding="edge").padding == "edge"
    assert bacpipe.settings.padding == "reflect"


def test_namespaces_unpack_into_keywords() -> None:
    options = make_options(**vars(bacpipe.config), **vars(bacpipe.settings))
    assert options.padding == bacpipe.settings.padding
    assert hasattr(bacpipe.settings, "device")
    assert not hasattr(bacpipe.settings, "devise")


def test_nested_values_are_checked_when_they_change(restored_settings: None) -> None:
    linear = bacpipe.settings.probe_configs["linear"]
    with pytest.raises(SettingsError) as raised:
        linear["learning_rate"] = -3
    for part in ("probe_configs", "learning_rate", "-3", "above 0", "bacpipe.settings"):
        assert part in str(raised.value)
    with pytest.raises(SettingsError, match=r"not 'learning_rat' \(did you mean 'learning_rate'"):
        linear["learning_rat"] = 1
    with pytest.raises(SettingsError, match="above 0"):
        linear.update({"batch_size": 64, "learning_rate": 0})
    with pytest.raises(SettingsError, match=r"not 'liner' \(did you mean 'linear'"):
        bacpipe.settings.probe_configs["liner"] = {}
    with pytest.raises(SettingsError, match=r"Did you mean 'probing'"):
        bacpipe.config.evaluation_task.append("probbing")
    with pytest.raises(SettingsError, match="cannot be removed"):
        del vars(bacpipe.settings)["hop"]
    with pytest.raises(SettingsError, match="did you mean 'hop'"):
        vars(bacpipe.settings).update(hopp=1)
    assert linear == {
        "solver": "lbfgs", "class_weight": "balanced", "penalty": "auto",
        "learning_rate": 0.001, "batch_size": 256, "max_epochs": 100, "patience": 5,
        "weight_decay": 0.0001,
    }  # fmt: skip
    assert bacpipe.config.evaluation_task == []
    linear["learning_rate"] = 0.5
    bacpipe.settings.audio_suffixes.append("WAV64")
    bacpipe.settings.clust_configs |= {"kmeans": {"n_init": 1}}
    options = make_options()
    assert options.probe_configs["linear"]["learning_rate"] == 0.5
    assert options.audio_suffixes[-1] == ".wav64"
    assert options.clust_configs["kmeans"] == {"n_init": 1}


def test_what_was_replaced_is_no_option_any_more(restored_settings: None) -> None:
    saved = bacpipe.settings.probe_configs
    bacpipe.settings.probe_configs = {"knn": {}}
    saved["linear"]["learning_rate"] = 0.5
    assert bacpipe.settings.probe_configs == {"knn": {}}
    bacpipe.settings.probe_configs = saved
    assert bacpipe.settings.probe_configs["linear"]["learning_rate"] == 0.5
    with pytest.raises(SettingsError):
        bacpipe.settings.probe_configs["linear"]["patience"] = 0


def test_what_is_open_keeps_its_options(recordings: Path, restored_settings: None) -> None:
    options = make_options()
    loader = bacpipe.Loader(recordings, "birdnet")
    embedder = bacpipe.Embedder("tiny", CustomModel=TinyModel, device="cpu")
    own = {"linear": {"patience": 3}}
    mine = make_options(probe_configs=own)
    bacpipe.settings.probe_configs["linear"]["learning_rate"] = 0.5
    own["linear"]["patience"] = 7
    for kept in (options, loader.options, embedder.options):
        assert kept.probe_configs["linear"]["learning_rate"] == 0.001
    assert mine.probe_configs["linear"] == {"patience": 3}
    with pytest.raises(FrozenInstanceError):
        options.hop = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_options_can_be_copied(copied: Callable, restored_settings: None) -> None:
    for space in (bacpipe.config, bacpipe.settings):
        twin = copied(space)
        assert vars(twin) == vars(space)
        assert repr(twin) == repr(space)
    twin = copied(bacpipe.settings)
    twin.probe_configs["linear"]["learning_rate"] = 0.5
    twin.padding = "edge"
    assert bacpipe.settings.probe_configs["linear"]["learning_rate"] == 0.001
    assert bacpipe.settings.padding == "wrap"
    with pytest.raises(SettingsError, match="above 0"):
        twin.probe_configs["linear"]["learning_rate"] = -3
    # What is inside becomes plain.
    assert type(copied(bacpipe.settings.probe_configs)) is dict
    options = make_options(hop=1)
    assert copied(options) == options
    assert yaml.safe_load(yaml.safe_dump(vars(bacpipe.settings))) == vars(bacpipe.settings)


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ({"kmean": {}}, "no clustering 'kmean'; did you mean 'kmeans'"),
        ({"kmeans": {"n_cluster": 3}}, "'kmeans' has no parameter 'n_cluster'; did you mean"),
        ({"birch": {"n_init": 1}}, "'birch' has no parameter 'n_init'; .*threshold"),
        ({"kmeans": 3}, "expected parameters below 'kmeans'"),
    ],
)
def test_unknown_clusterings_and_parameters_are_refused_at_once(
    recordings: Path, tmp_path: Path, tiny_model: type[TinyModel], configs: dict, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        bacpipe.play(
            audio_dir=recordings,
            models=["tiny"],
            CustomModels=[tiny_model],
            main_results_dir=tmp_path / "results",
            evaluation_task="clustering",
            clust_configs=configs,
        )
    assert not (tmp_path / "results").exists()
    assert tiny_model.windows_seen == 0


def test_clusterings_of_scikit_learn_are_taken() -> None:
    for name, parameters in Options().clust_configs.items():
        check_clustering(name, parameters)
    configs = {"agglomerative_clustering": {"n_clusters": 4, "linkage": "ward"}}
    assert make_options(clust_configs=configs).clust_configs == configs


def test_options_are_light() -> None:
    script = (
        "import sys, bacpipe; bacpipe.settings.hop = 1; bacpipe.config; "
        "from bacpipe.options import make_options; make_options(); "
        "print(sorted({'torch', 'pandas', 'numpy', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("name", KEYS)
def test_yaml_files_are_written_from_the_fields(name: str) -> None:
    text = default_file(f"{name}.yaml").read_text(encoding="utf-8")
    assert text == yaml_text(name), "run python -m bacpipe.options"
    assert max(map(len, text.splitlines())) <= 100
    assert make_options(**yaml.safe_load(text)) == Options()


def test_fields_say_what_they_are() -> None:
    for option in fields(Options):
        about = option.metadata
        assert about["help"], option.name
        assert isinstance(about["unit"], str)
        with pytest.raises(ValueError, match="expected"):
            about["rule"](object())


def test_every_option_is_read_somewhere() -> None:
    """As an attribute of something that is called options."""
    read = set()
    for path in (ROOT / "bacpipe").rglob("*.py"):
        if path.name == "options.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                owner = node.value
                name = getattr(owner, "attr", getattr(owner, "id", ""))
                if name in {"options", "_options"}:
                    read.add(node.attr)
    assert sorted({option.name for option in fields(Options)} - read) == []


def test_padding_is_what_windows_can_do() -> None:
    assert get_args(Padding) == PADDING_MODES


def test_a_view_does_not_change_when_the_namespace_does(restored_settings: None) -> None:
    options = make_options()
    bacpipe.settings.padding = "edge"
    assert options.padding == "wrap"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models: [birdnet", "not valid YAML"),
        ("- birdnet", "key: value"),
        ("modles: [birdnet]", "'models'"),
        ("models: {}", "models"),
        ("1: 2", "key: value"),
        ("audio_dir:recordings", "a space after the colon"),
        ("models:\n\t- birdnet", "a tab; indent with spaces"),
        ('audio_dir: "C:\\rec"', "leave the quotes out"),
        ('audio_dir: "C:\\data"', "leave the quotes out"),
        ("audio_dir: 2024", "in quotes"),
        ("device: cpu", "a key of settings.yaml"),
        ("overwrite: 'false'", "false, without quotes"),
        ("models: beats\noverwrite: true\nmodels: bat", "models is given twice, in lines 1 and 3;"),
    ],
)
def test_broken_yaml_files_are_named(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as raised:
        read_overrides(path, "config")
    assert "mine.yaml" in str(raised.value)
    assert expected in str(raised.value)


def test_yaml_files_with_a_byte_order_mark_and_comments_only_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbfmodels: beats\n")
    assert read_overrides(path, "config") == {"models": ("beats",)}
    path.write_text("# nothing\n", encoding="utf-8")
    assert read_overrides(path, "config") == {}
    with pytest.raises(SettingsError, match="does not exist"):
        read_overrides(tmp_path / "absent.yaml", "config")


@pytest.mark.parametrize("version", [(3, 10), (3, 15)])
def test_another_python_is_told_which_ones_do(version: tuple[int, int]) -> None:
    script = f"import sys; sys.version_info = (*{version}, 13, 'final', 0); import bacpipe"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    found = ".".join(map(str, version))
    assert f"3.11 to 3.14; this is Python {found}" in done.stderr.splitlines()[-1]


def test_the_promised_pythons_are_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11,<3.15"
    prefix = "Programming Language :: Python :: "
    named = [line.removeprefix(prefix) for line in project["classifiers"] if prefix in line]
    assert named == ["3.11", "3.12", "3.13", "3.14"]
    for page in ("README.md", "docs/installation.md", "bacpipe/__init__.py"):
        assert "Python 3.11 to 3.14" in (ROOT / page).read_text(encoding="utf-8"), page


def test_import_is_light() -> None:
    script = (
        "import sys, bacpipe; "
        "heavy = {'torch', 'pandas', 'numpy', 'sklearn', 'panel', 'librosa', 'transformers'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_public_name_exists() -> None:
    for name in bacpipe.__all__:
        assert getattr(bacpipe, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = bacpipe.nonsense


def test_constants_derive_from_the_cards() -> None:
    assert len(bacpipe.supported_models) == 41
    assert list(bacpipe.EMBEDDING_DIMENSIONS) == bacpipe.supported_models
    assert bacpipe.EMBEDDING_DIMENSIONS["birdnet"] == 1024
    assert sorted(bacpipe.TF_MODELS) == [
        "google_humpback", "google_whale", "hbdet", "perch_bird", "surfperch", "vggish", "yamnet",
    ]  # fmt: skip
    assert set(bacpipe.supported_models) - set(bacpipe.NEEDS_CHECKPOINT) == {
        "birdnet", "batdetect2_clip_avg", "batdetect2_dets_avg",
    }  # fmt: skip


def test_settings_are_checked_as_often_for_many_recordings_as_for_few(
    tmp_path: Path, tiny_model: type[TinyModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_options()  # reads the defaults, which is done once
    checked: list[Options] = []
    check = Options.__post_init__

    def counting(self: Options) -> None:
        checked.append(self)
        check(self)

    monkeypatch.setattr(Options, "__post_init__", counting)
    counts = []
    for number in (3, 9):
        folder = tmp_path / str(number)
        for i in range(number):
            write_recording(folder / "field" / f"site{i % 3}/r{i}.wav", 3.0, seed=i)
        checked.clear()
        bacpipe.play(
            audio_dir=folder / "field", main_results_dir=folder / "results", models=["tiny"],
            CustomModels=[tiny_model], device="cpu", evaluation_task=["clustering"],
            clust_configs={"kmeans": {"n_clusters": 2}}, bootstrap_samples=0,
        )  # fmt: skip
        counts.append(len(checked))
    assert counts[0] == counts[1]
