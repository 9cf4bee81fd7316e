"""Run sweep.yaml (or a short form of it), write its rows and the README's table. See README.md for the claim."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure
import pandas
import yaml

from orl import bench

HERE = Path(__file__).parent
RESULTS = HERE / "results"
FOLDER = HERE.parents[1] / "runs" / "job_shop_sweep"
PACKAGES = ("numpy", "numba", "torch", "stable-baselines3", "sb3-contrib", "ortools")


def quick_file(folder: Path) -> Path:
    """The sweep with one small instance, little training and short limits."""
    sweep = yaml.safe_load((HERE / "sweep.yaml").read_text(encoding="utf-8"))
    sweep["environments"][0]["instances"] = ["ta01"]
    sweep["seeds"], sweep["budget"] = 2, {"steps": 8192}
    sweep["evaluation"]["every"] = 4096
    for solver in sweep["solvers"]:
        solver["time_limit"] = 0.5 if solver["solver"] == "tabu-search" else 3
    path = folder / "quick.yaml"
    path.write_text(yaml.safe_dump(sweep), encoding="utf-8")
    return path


def gaps(rows: pandas.DataFrame) -> pandas.DataFrame:
    """One row a subject: mean gap (%) to the best known makespan on each size, over instances and seeds."""
    sizes = {"ta0": "15x15", "ta1": "20x15", "ta2": "20x20"}
    known = rows.assign(size=rows["instance"].str[:3].map(sizes), gap=100 * rows["gap_to_best_known"])
    table = known.pivot_table(index="subject", columns="size", values="gap", aggfunc="mean", sort=False)
    table["all"] = known.groupby("subject")["gap"].mean()
    table["runs"] = rows.groupby("subject")["run"].nunique()
    table["seconds an instance"] = rows.groupby("subject")["seconds"].median()
    return table.reset_index()


def main() -> None:
    options = measure.argument_parser(__doc__).parse_args()
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            bench.run_sweep(bench.read_sweep(quick_file(Path(folder))), out)
            rows = bench.load(out)
    else:
        bench.run_sweep(bench.read_sweep(HERE / "sweep.yaml"), FOLDER)
        rows = bench.load(FOLDER)
    if not rows["checked"].all():
        raise SystemExit("a schedule was refused by its instance")
    table = gaps(rows)
    text = measure.table([{str(key): value for key, value in row.items()} for row in table.to_dict("records")])
    print(text)
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        rows.drop(columns=["sweep", "env_id", "interrupted", "violations"]).to_csv(
            RESULTS / "rows.csv", index=False, float_format="%.6g"
        )
        machine = measure.machine() | measure.versions(*PACKAGES) | {"date": measure.today()}
        measure.write_json(RESULTS / "environment.json", machine)
        measure.write_between_markers(HERE / "README.md", "table", text + "\n\n" + measure.describe(machine))
    mean = table.set_index("subject")["all"]
    measure.print_result(
        mean_gap_maskable_ppo=mean["maskable-ppo"],
        mean_gap_best_rule=mean[["spt", "mwkr", "mopnr", "fdd-mwkr", "lrpt"]].min(),
        mean_gap_tabu_search=mean["tabu-search"],
        mean_gap_cp_sat=mean["cp-sat"],
        runs=int(rows["run"].nunique()),
    )


if __name__ == "__main__":
    main()
