"""Sites are those of the table of sites, in splits, intervals, results by site and comparisons."""

from __future__ import annotations

import json

import bacpipe
from bacpipe.evaluation.evaluate import run_evaluations
from bacpipe.evaluation.retrieved_windows import read_retrieved
from bacpipe.evaluation.units import units_of
from bacpipe.store.fingerprints import read_result_table
from bacpipe.store.layout import RETRIEVAL_NEIGHBOURS
from tests.conftest import TinyModel
from tests.evaluation.test_benchmark import OnePass

# Every site has a recording in each of the three folders.
SITES = {"rec[036].wav": "036", "rec[147].wav": "147", "rec[258].wav": "258"}


def write_sites(data_set, sites):
    lines = ["site,latitude,longitude", *(f"{site},47.5,19.1" for site in sites)]
    (data_set.audio_dir / "sites.csv").write_text("\n".join(lines) + "\n")


def of_site(recording):
    return next(site for site, numbers in SITES.items() if recording[-5] in numbers)


def test_sites_of_the_table_are_split_and_told_apart(data_set):
    options = data_set.options(split="site", probe_configs={"linear": {}}, overwrite=False)
    tasks = ["probing", "clustering"]

    def evaluate():
        loader = bacpipe.Loader(data_set.audio_dir, "tiny", main_results_dir=data_set.results)
        report = run_evaluations({"tiny": loader}, tasks, options)
        assert report.errors == []
        return report, report.results["tiny"]["probing"]["linear"]

    report, folders = evaluate()
    assert set(folders["per_site"]) < {"site0", "site1", "site2"}
    write_sites(data_set, SITES)
    # What was stored is of other sites, so that it is computed again.
    report, result = evaluate()
    split = json.loads((report.folder / "split_species.json").read_text())["sets"]
    units = {unit for names in split.values() for unit in names}
    assert set(SITES) <= units
    (site,) = result["per_site"]
    assert site in SITES and result["split"]["recordings"] == {"train": 3, "val": 3, "test": 3}
    paths = data_set.loader.paths
    table, _ = read_result_table(paths.probe_path / "test_scores_linear.parquet", None)
    assert {of_site(name) for name in table["audiofilename"].to_pylist()} == {site}
    assert set(table["site"].to_pylist()) == {site}
    retrieved = read_retrieved(
        paths.clust_path / RETRIEVAL_NEIGHBOURS, report.results["tiny"]["retrieval"]
    )
    assert set(units_of(retrieved.recordings, "site", retrieved.sites)) == set(SITES)
    written = (paths.probe_path / "probe_results_linear.json").stat().st_mtime_ns
    evaluate()
    assert (paths.probe_path / "probe_results_linear.json").stat().st_mtime_ns == written


def test_classifiers_are_compared_over_the_sites_of_the_table(data_set):
    # Two recordings share a site; by folders there would be three, too few for intervals.
    write_sites(data_set, ["rec[01].wav", *(f"rec{number}.wav" for number in range(2, 9))])
    settings = {"split": "site", "main_results_dir": data_set.results}
    for name, model in (("one", TinyModel), ("two", OnePass)):
        result = bacpipe.benchmark(name, data_set.audio_dir, CustomModel=model, **settings)
        assert result["unit"] == "site" and len(result["per_site"]) == 8
        assert result["per_site"]["rec[01].wav"]["windows"] == 18
    tables = bacpipe.cross_model_evaluation(
        "None", "probing", ["one", "two"], audio_dir=data_set.audio_dir, **settings
    )
    assert tables["classifiers_pairs"]["sites"].tolist() == [8]
