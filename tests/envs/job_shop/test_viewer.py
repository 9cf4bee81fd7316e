"""Gantt charts: what is on the picture, partial schedules, files, the page without a network."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orl.common.errors import InputError, MissingExtraError
from orl.common.problem import Bounds
from orl.envs.job_shop.gantt_layout import layout
from orl.envs.job_shop.instance import Schedule, ShopInstance
from orl.envs.job_shop.model import Mode, Model
from orl.envs.job_shop.schedule_graph import critical_path
from orl.envs.job_shop.viewer import COLOURS, gantt, gantt_html, gantt_rgb, save_picture


def shop(n_jobs: int, n_machines: int, seed: int = 0) -> tuple[ShopInstance, Schedule]:
    """A random job shop and a schedule that appends each operation, job by job round robin."""
    rng = np.random.default_rng(seed)
    model = Model(f"shop {n_jobs}x{n_machines}", "job_shop")
    machines = [model.unary(f"machine {k}") for k in range(n_machines)]
    route = [rng.permutation(n_machines) for _ in range(n_jobs)]
    for job in range(n_jobs):
        for k, m in enumerate(route[job]):
            o = model.interval(f"J{job}.{k}", [Mode(int(rng.integers(1, 100)), {machines[m]: 1})], job=job)
            if k:
                model.precedence(o - 1, o)
    instance = model.compile()
    start, free, ready = np.zeros(instance.n_ops, np.int32), np.zeros(n_machines, int), np.zeros(n_jobs, int)
    for k in range(n_machines):
        for job in range(n_jobs):
            o, m = job * n_machines + k, route[job][k]
            start[o] = max(free[m], ready[job])
            free[m] = ready[job] = start[o] + instance.mode_duration[o]
    schedule = Schedule(start, np.zeros(instance.n_ops, np.int32))
    assert instance.check(schedule).feasible
    return instance, schedule


def project() -> tuple[ShopInstance, Schedule]:
    """Two cumulative resources; c needs two units of a crew of four that do not lie side by side."""
    model = Model("house")
    crew, trucks = model.cumulative("crew", 4), model.cumulative("trucks", 2)
    model.interval("a", [Mode(2, {crew: 1})])
    model.interval("b", [Mode(6, {crew: 1, trucks: 2})])
    model.interval("x", [Mode(2, {crew: 1})])
    model.interval("y", [Mode(6, {crew: 1})])
    model.interval("c", [Mode(3, {crew: 2})])
    model.interval("milestone", [Mode(0)])
    instance = model.compile()
    schedule = Schedule(np.array([0, 0, 0, 0, 2, 6], np.int32), np.zeros(6, np.int32))
    assert instance.check(schedule).feasible
    return instance, schedule


def count(figure: object, gid: str) -> int:
    """Number of items (polygons, lines, texts) in the collections of this name."""
    found = [c for c in figure.axes[0].collections if c.get_gid() == gid]  # type: ignore[attr-defined]
    return sum(max(len(c.get_paths()), len(c.get_offsets())) for c in found)


@pytest.mark.parametrize("size", [(3, 3), (6, 6), (15, 15), (20, 5)])
def test_every_operation_is_one_bar_and_the_critical_path_is_outlined(size: tuple[int, int]) -> None:
    instance, schedule = shop(*size)
    path = critical_path(instance, schedule)
    figure = gantt(instance, schedule)
    assert count(figure, "operations") == instance.n_ops
    assert count(figure, "critical") == len(path)
    assert count(figure, "joints") == len(path) - 1
    assert count(figure, "rows") == size[1]
    assert count(figure, "makespan") == 1
    assert count(figure, "now") == 0
    assert count(gantt(instance, schedule, critical=False), "critical") == 0


def test_bars_stand_on_their_machine_at_their_time_in_the_colour_of_their_job() -> None:
    from matplotlib.colors import to_rgba

    instance, schedule = shop(4, 3)
    collection = next(c for c in gantt(instance, schedule).axes[0].collections if c.get_gid() == "operations")
    rows, bars = layout(instance, schedule)
    assert [row.name for row in rows] == ["machine 0", "machine 1", "machine 2"]
    assert sorted(bar.op for bar in bars) == list(range(instance.n_ops))
    for bar, path, colour in zip(bars, collection.get_paths(), collection.get_facecolors(), strict=True):
        (left, top), (right, bottom) = path.vertices[:4].min(0), path.vertices[:4].max(0)
        assert (left, right) == (schedule.start[bar.op], schedule.start[bar.op] + instance.mode_duration[bar.op])
        machine = instance.use_resource[bar.op]
        assert machine < top < bottom < machine + 1
        assert tuple(colour) == to_rgba(COLOURS[instance.job[bar.op]])


def test_labels_are_written_only_where_they_fit() -> None:
    model = Model("widths", "job_shop")
    saw = model.unary("saw")
    for job, duration in enumerate((1000, 1, 1000)):
        model.interval(f"J{job}", [Mode(duration, {saw: 1})], job=job)
    instance = model.compile()
    figure = gantt(instance, Schedule(np.array([0, 1000, 1001], np.int32), np.zeros(3, np.int32)))
    assert count(figure, "operations") == 3
    labels = next(c for c in figure.axes[0].collections if c.get_gid() == "labels")
    assert labels.get_offsets()[:, 0].tolist() == [500.0, 1501.0]


def test_jobs_of_one_colour_differ_by_their_bands() -> None:
    instance, schedule = shop(len(COLOURS) + 1, 2)
    plain, plain_schedule = shop(len(COLOURS), 2)
    assert count(gantt(plain, plain_schedule), "bands") == 0
    assert count(gantt(instance, schedule), "bands") == 2  # the two operations of the tenth job


def test_units_of_a_cumulative_resource_are_lanes_that_never_overlap() -> None:
    instance, schedule = project()
    rows, bars = layout(instance, schedule)
    assert [row.name for row in rows] == ["crew", "trucks", "no resource"]
    assert [bar.op for bar in bars].count(1) == 2  # on the crew and on the trucks
    assert [bar.op for bar in bars].count(4) == 2  # two units apart
    for a in bars:
        assert rows[a.row].bottom <= a.bottom < a.bottom + a.height <= rows[a.row].bottom + rows[a.row].height
        for b in bars:
            if a is not b and a.duration > 0 and b.duration > 0:
                apart = a.start + a.duration <= b.start or b.start + b.duration <= a.start
                beside = a.bottom + a.height <= b.bottom or b.bottom + b.height <= a.bottom
                assert apart or beside
    figure = gantt(instance, schedule)
    assert count(figure, "operations") == 7
    assert count(figure, "instants") == 1


def test_partial_schedules_leave_operations_out_and_show_now() -> None:
    instance, schedule = shop(6, 4)
    start = np.where(schedule.start <= np.median(schedule.start), schedule.start, -1).astype(np.int32)
    figure = gantt(instance, Schedule(start, schedule.mode))
    assert count(figure, "operations") == int((start >= 0).sum())
    assert count(figure, "critical") == 0
    assert f"{int((start >= 0).sum())} of 24 operations" in figure.texts[0].get_text()
    now = next(c for c in figure.axes[0].collections if c.get_gid() == "now")
    assert now.get_paths()[0].vertices[0, 0] == start.max()
    empty = gantt(instance, Schedule(np.full(24, -1, np.int32), schedule.mode))
    assert count(empty, "operations") == 0


def test_frames_of_an_episode_have_one_even_size_and_show_the_bars() -> None:
    instance, schedule = shop(5, 4)
    frames = []
    for placed in (0, 7, 20):
        start = np.full(20, -1, np.int32)
        first = np.argsort(schedule.start, kind="stable")[:placed]
        start[first] = schedule.start[first]
        frames.append(gantt_rgb(instance, Schedule(start, schedule.mode)))
    shapes = {frame.shape for frame in frames}
    assert len(shapes) == 1
    height, width, channels = shapes.pop()
    assert (height % 2, width % 2, channels) == (0, 0, 3)
    assert all(frame.dtype == np.uint8 and frame.flags.c_contiguous for frame in frames)
    fills = [tuple(int(colour[k : k + 2], 16) for k in (1, 3, 5)) for colour in COLOURS[:5]]
    seen = [[int((frame == fill).all(-1).sum()) for fill in fills] for frame in frames]
    assert seen[0] == [0] * 5
    assert sum(seen[1]) > 1000
    assert min(seen[2]) > 1000


def test_title_tells_objective_and_the_best_reference() -> None:
    instance, schedule = shop(3, 3)
    makespan = instance.check(schedule).objective

    def headline(instance: ShopInstance) -> str:
        return gantt(instance, schedule).texts[0].get_text()

    assert f"makespan {makespan:,.0f} · lower bound {instance.makespan_bound:,}" in headline(instance)
    assert "optimum 100 · " in headline(replace(instance, known_bounds=Bounds(100, 100, "test", "2026")))
    open_case = headline(replace(instance, known_bounds=Bounds(100, 110, "test", "2026")))
    assert "best known 110 · lower bound 100 · " in open_case
    assert makespan is not None
    solved = headline(replace(instance, known_bounds=Bounds(makespan, makespan, "test", "2026")))
    assert solved.endswith(f"makespan {makespan:,.0f} · optimal")
    assert gantt(instance, schedule, title="mine $1 $2").texts[0].get_text() == "mine $1 $2"


def test_an_infeasible_schedule_is_drawn_and_called_so() -> None:
    instance, schedule = shop(3, 3)
    figure = gantt(instance, Schedule(np.zeros(9, np.int32), schedule.mode))
    assert figure.texts[0].get_text().endswith("infeasible")
    assert count(figure, "operations") == 9


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf", "html", "PNG"])
def test_save_picture_writes_the_format_of_the_suffix(suffix: str, tmp_path: Path) -> None:
    if suffix == "html":
        pytest.importorskip("plotly")
    magic = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF", "html": b"<!DOCTYPE html>"}
    target = tmp_path / f"picture.{suffix}"
    save_picture(*project(), target)
    head = target.read_bytes()[:4096].lstrip()
    assert head.lower().startswith((magic[suffix.lower()].lower(), b"<html"))
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


def test_save_picture_rejects_other_suffixes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"picture\.bmp, suffix: unknown picture format .*'\.bmp'.*\.png, \.svg"):
        save_picture(*project(), tmp_path / "picture.bmp")
    assert not list(tmp_path.iterdir())


def test_page_is_whole_without_a_network_and_holds_every_operation() -> None:
    pytest.importorskip("plotly")
    instance, schedule = shop(12, 4)
    page = gantt_html(instance, schedule, title="a <b> & c")
    scripts = re.findall(r"<script[^>]*>", page)
    assert scripts
    assert not any("src" in script for script in scripts)
    assert not re.search(r"<link[^>]+href", page)
    assert len(page) > 1_000_000  # plotly itself is inside
    call = page[page.rindex("Plotly.newPlot(") :]
    traces = json.JSONDecoder().raw_decode(call[call.index("[") :])[0]
    bars = [t for t in traces if t["type"] == "bar"]
    assert [t["name"] for t in bars] == [f"job {j}" for j in range(12)]
    hover = {row[0]: row[1:] for t in bars for row in t["customdata"]}
    assert len(hover) == instance.n_ops
    o = instance.op_names.index("J3.1")
    start, duration = int(schedule.start[o]), int(instance.mode_duration[o])
    machine = instance.resource_names[instance.use_resource[o]]
    assert hover["J3.1"] == [3, machine, start, start + duration, duration, ""]


def test_page_without_plotly_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(MissingExtraError, match=r"orl\[report\]"):
        save_picture(*project(), tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_a_wrong_schedule_is_rejected_before_anything_is_drawn() -> None:
    instance, schedule = shop(3, 3)
    with pytest.raises(InputError, match="start: wrong shape"):
        gantt(instance, Schedule(schedule.start[:-1], schedule.mode))
    with pytest.raises(InputError, match=r"mode of 'J0\.0': no such mode"):
        gantt(instance, Schedule(schedule.start, schedule.mode + 1))


def test_importing_the_viewer_imports_no_plotting_library_and_drawing_no_pyplot() -> None:
    code = """
import sys
import numpy as np
from orl.envs.job_shop.model import Mode, Model
from orl.envs.job_shop.viewer import Schedule, gantt_rgb
assert not {"matplotlib", "plotly"} & set(sys.modules)
model = Model()
model.interval("a", [Mode(3, {model.unary("saw"): 1})])
gantt_rgb(model.compile(), Schedule(np.zeros(1, np.int32), np.zeros(1, np.int32)))
assert "matplotlib.pyplot" not in sys.modules and "plotly" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
