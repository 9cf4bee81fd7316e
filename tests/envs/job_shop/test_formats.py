"""Instance files: what is written is read back, and whatever is wrong is one InputError with file, line and field."""

from __future__ import annotations

import json
import os
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orl.common.errors import InputError, UnknownNameError
from orl.envs.job_shop import formats
from orl.envs.job_shop.builders import flexible_job_shop, flow_shop, job_shop, open_shop, rcpsp
from orl.envs.job_shop.generators import (
    UniformFlexibleJobShop,
    UniformFlowShop,
    UniformJobShop,
    UniformOpenShop,
    UniformProject,
)

SEEDS = st.integers(0, 2**32)
TINY = job_shop([[0, 1], [1, 0]], [[3, 2], [4, 1]], name="tiny")
STANDARD = b"2 2\n0 3 1 2\n1 4 0 1\n"
TAILLARD = b"2 2\nTimes\n3 2\n4 1\nMachines\n1 2\n2 1\n"
FJS = b"2 3 1.5\n2 1 1 3 2 2 4 3 5\n1 2 1 1 3 6\n"
COLLECTION = b"# two\na 1 2\n0 3 1 2\nb2 2 1\n0 1\n0 5\n"


def same(a, b):
    return a.to_json() == b.to_json()


# ---- round trips ---------------------------------------------------------------------------------------------------
@given(SEEDS)
def test_standard_text_is_read_back(seed):
    instance = UniformJobShop((1, 4), (1, 4), low=0)(np.random.default_rng(seed))
    text = formats.to_standard(instance)
    assert same(formats.parse(text, name=instance.name), instance)
    assert same(formats.parse(text, name=instance.name, format="standard"), instance)


@given(st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**20)), min_size=1, max_size=6), min_size=1))
def test_ragged_and_reentrant_jobs_are_read_back(jobs):
    machines, durations = ([[pair[k] for pair in job] for job in jobs] for k in (0, 1))
    instance = job_shop(machines, durations, name="ragged", n_machines=4)
    assert same(formats.parse(formats.to_standard(instance), name="ragged", format="standard"), instance)
    assert same(
        formats.parse(formats.to_fjs(instance), name="ragged", format="fjs"),
        replace(instance, kind="flexible_job_shop"),
    )


@given(SEEDS, st.sampled_from(["job_shop", "flow_shop", "open_shop"]))
def test_taillard_text_is_read_back_as_any_shop(seed, kind):
    generators = {"job_shop": UniformJobShop, "flow_shop": UniformFlowShop, "open_shop": UniformOpenShop}
    instance = generators[kind]((1, 4), (2, 4), low=0)(np.random.default_rng(seed))
    for text in (formats.to_taillard(instance), formats.to_standard(instance)):
        assert same(formats.parse(text, name=instance.name, kind=kind), instance)
    bare = "\n".join(line for line in formats.to_taillard(instance).splitlines() if line[0].isdigit())
    assert same(formats.parse(bare, name=instance.name, kind=kind), instance)


@given(SEEDS)
def test_fjs_text_is_read_back(seed):
    instance = UniformFlexibleJobShop((1, 4), (1, 4), low=0)(np.random.default_rng(seed))
    assert same(formats.parse(formats.to_fjs(instance), name=instance.name), instance)


@pytest.mark.parametrize(
    "generator",
    [UniformJobShop(), UniformFlowShop(), UniformOpenShop(), UniformFlexibleJobShop(), UniformProject(n_modes=(1, 2))],
)
def test_files_are_written_and_read_back(tmp_path, generator):
    instance = generator(np.random.default_rng(3))
    path = tmp_path / "deep" / f"{instance.name}.json"
    formats.write(instance, path)
    assert same(formats.read(path), instance)
    if instance.kind != "general":
        path = tmp_path / (instance.name + (".fjs" if instance.kind == "flexible_job_shop" else ".txt"))
        formats.write(instance, path)
        kind = instance.kind if instance.kind in ("flow_shop", "open_shop") else "job_shop"
        assert same(formats.read(path, kind=kind), instance)


def test_every_format_can_be_asked_for(tmp_path):
    for chosen in formats.FORMATS:
        path = tmp_path / "tiny"
        formats.write(TINY, path, format=chosen)
        again = formats.read(path)
        assert (again.primary_resource == TINY.primary_resource).all(), chosen
        assert (again.mode_duration == TINY.mode_duration).all(), chosen
    with pytest.raises(InputError, match="unknown format"):
        formats.write(TINY, path, format="xml")
    with pytest.raises(InputError, match="unknown format"):
        formats.read(path, format="xml")
    with pytest.raises(InputError, match="unknown kind"):
        formats.read(path, kind="work_shop")


# ---- detection and contents ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "content",
    [
        STANDARD,
        b"# comment\n\n 2\t2 \r\n0 3 1 2\r\n\r\n1 4 0 1",
        TAILLARD,
        b"2 2\n3 2\n4 1\n1 2\n2 1\n",
        b"Nb of jobs, Nb of Machines, Time seed, Machine seed, Upper bound, Lower bound\n"
        b" 2 2 840612802 398197754 6 6\n Times\n 3 2\n 4 1\n Machines\n 1 2\n 2 1\n",
        b"2 2\n0 3 1 2 -1 -1\n1 4 0 1 -1 -1\n",
        b"tiny 2 2\n0 3 1 2\n1 4 0 1\n",
        b'{"name": "tiny", "machines_matrix": [[0, 1], [1, 0]], "duration_matrix": [[3, 2], [4, 1]], "metadata": {}}',
        b'{"tiny": {"name": "tiny", "machines_matrix": [[0, 1], [1, 0]], "duration_matrix": [[3, 2], [4, 1]]}}',
        b"\n " + json.dumps(TINY.to_json(), indent=1).encode(),
    ],
)
def test_the_format_is_detected(content):
    assert same(formats.parse(content, name="tiny"), TINY)


def test_fjs_machines_count_from_one():
    want = flexible_job_shop([[[(0, 3)], [(1, 4), (2, 5)]], [[(0, 1), (2, 6)]]], name="x")
    assert same(formats.parse(FJS, name="x"), want)
    assert same(formats.parse(b"2 3\n2 1 1 3 2 2 4 3 5 -1 -1\n1 2 1 1 3 6\n", name="x", format="fjs"), want)
    assert same(formats.parse(b"2 3\n2 1 1 3 2 2 4 3 5\n1 2 1 1 3 6\n", name="x"), want)


def test_an_unused_machine_of_the_header_is_kept():
    assert formats.parse(b"1 3\n0 1 1 1 0 1\n").n_declared_resources == 3


def test_instances_of_a_collection_are_chosen_by_name(tmp_path):
    path = tmp_path / "c.txt"
    path.write_bytes(COLLECTION)
    assert formats.instance_names(path) == ["a", "b2"]
    assert same(formats.read(path, instance="b2"), job_shop([[0], [0]], [[1], [5]], name="b2"))
    with pytest.raises(InputError, match=r"several instances \(expected one of a, b2\)"):
        formats.read(path)
    with pytest.raises(UnknownNameError, match="did you mean 'b2'"):
        formats.read(path, instance="b3")
    both = [formats.read(path, instance=name) for name in ("a", "b2")]
    path.write_text(formats.to_collection(both))
    assert [formats.read(path, instance=one.name).to_json() for one in both] == [one.to_json() for one in both]


def test_instances_of_job_shop_lib_json_are_chosen_by_name(tmp_path):
    path = tmp_path / "b.json"
    rows = {"machines_matrix": [[0]], "duration_matrix": [[3]]}
    path.write_text(json.dumps({"la01": rows, "la02": rows}))
    assert formats.instance_names(path) == ["la01", "la02"]
    assert formats.read(path, instance="la02").name == "la02"
    with pytest.raises(InputError, match="several instances"):
        formats.read(path)
    with pytest.raises(UnknownNameError):
        formats.read(path, instance="la03")


def test_other_files_hold_one_instance(tmp_path):
    path = tmp_path / "tiny.txt"
    path.write_bytes(STANDARD)
    assert formats.instance_names(path) == ["tiny"]
    assert formats.read(path, instance="tiny").name == "tiny"
    with pytest.raises(InputError, match="holds one instance"):
        formats.read(path, instance="other")


@pytest.mark.parametrize(
    "instance, chosen, reason",
    [
        (flexible_job_shop([[[(0, 1), (1, 2)]]]), "standard", "several modes"),
        (flexible_job_shop([[[(0, 1), (1, 2)]]]), "taillard", "several modes"),
        (job_shop([[0, 0]], [[1, 2]]), "taillard", "2 operations on 1 machines"),
        (open_shop([[0, 1]], [[1, 2]]), "fjs", "open shop"),
        (job_shop([[0]], [[1]], release=[1]), "standard", "releases"),
        (job_shop([[0]], [[1]], objective="total_flow"), "fjs", "total_flow"),
        (rcpsp([1, 1, 1], [[1], [1], [1]], [2], [(0, 1)]), "standard", "precedences"),
        (rcpsp([1, 1], [[1], [1]], [2], []), "standard", "cumulative"),
        (replace(TINY, name="two words"), "collection", "bad name"),
    ],
)
def test_a_format_that_loses_something_is_refused(tmp_path, instance, chosen, reason):
    path = tmp_path / "x.txt"
    with pytest.raises(InputError, match=reason):
        formats.write(instance, path, format=chosen)
    assert not path.exists()


# ---- bad files -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "content, line, field, part",
    [
        (b"", None, None, "the file is empty"),
        (b"\n\n# nothing\n", None, None, "the file is empty"),
        (b"2\n", 1, "header", "wrong count of numbers (got 1"),
        (b"hello world\n", 1, "number of jobs", "not an integer (got 'hello'"),
        (b"0 3\n", 1, "number of jobs", "out of range (got 0"),
        (b"2 -3\n", 1, "number of machines", "negative number (got -3"),
        (b"2 2\n0 3 1 2\n", 2, "job 1", "the file ends early"),
        (b"2 2\n0 3 1 2\n1 4\n", 3, "job 1", "wrong count of numbers (got 2"),
        (b"2 2\n0 3 1 2 5\n1 4 0 1\n", 2, "job 0", "wrong count of numbers (got 5"),
        (b"2 2\n0 3 1 2\n1 4 0 -1\n", 3, "job 1, operation 1, duration", "negative number (got -1"),
        (b"2 2\n0 3 1 2\n2 4 0 1\n", 3, "job 1, operation 0, machine", "out of range (got 2, expected 0..1)"),
        (b"2 2\n0 3 1 2\n1 x 0 1\n", 3, "job 1, operation 0, duration", "not an integer (got 'x'"),
        (b"2 2\n0 3 1 2\n1 4.5 0 1\n", 3, "job 1, operation 0, duration", "not an integer (got '4.5'"),
        (b"2 2\n0 3 1 2\n1 1_0 0 1\n", 3, "job 1, operation 0, duration", "not an integer (got '1_0'"),
        (b"2 2\n0 3 1 2\n1 9999999999 0 1\n", 3, "job 1, operation 0, duration", "out of range"),
        (b"2 2\n0 3 1 2\n1 4 0 1\n\n7\n", 5, "end of file", "unexpected text after the last job (got '7'"),
        (b"2 2\n0 3 -1 -1\n-1 -1\n", 3, "job 1", "wrong count of numbers (got 0"),
        (b"2 2\n0 3 1 2\n1 4 0 \xff\xfe\n", 3, "job 1, operation 1, duration", r"not an integer (got '\\xff\\xfe'"),
        (b"\x7fELF\x02\x01\x01\x00\x00\n", 1, "header", "not an integer"),
        (b"1 1\n0 " + b"9" * 2000 + b"\n", 2, "job 0, operation 0, duration", "not an integer"),
        (b"2 2\n3 2\n4 1\n1 2\n3 1\n", 5, "job 1, operation 0, machine", "out of range (got 3, expected 1..2)"),
        (b"2 2\n3 2\n4 1\n1 2\n", 4, "job 1, machines", "the file ends early"),
        (b"2 2\nTimes\n3 2\n4\nMachines\n1 2\n2 1\n", 4, "job 1, durations", "wrong count of numbers (got 1"),
        (b"2 3 1.5\n2 1 1 3 2 2 4 3\n1 1 1 1\n", 2, "job 0, operation 1, duration", "the line ends early"),
        (b"1 3 1.5\n1 1 4 3\n", 2, "job 0, operation 0, machine", "out of range (got 4, expected 1..3)"),
        (b"1 3 1.5\n1 0\n", 2, "job 0, operation 0, number of alternatives", "out of range (got 0"),
        (b"1 3 1.5\n0\n", 2, "job 0, number of operations", "out of range (got 0"),
        (b"1 3 1.5\n1 1 1 3 9\n", 2, "job 0", "too many numbers (got 1"),
        (b"1 3 x\n1 1 1 3\n", 1, "header", "not a number (got 'x'"),
        (b"a 1 x\n0 1\n", 1, "a, number of machines", "not an integer (got 'x'"),
        (b"a 1 1\n0 1\nb 1\n", 3, "header", "wrong count of words (got 2"),
        (b"a 2 1\n0 1\n", 2, "a, job 1", "the file ends early"),
        (b'{"schema": \n oops}', 2, "column 2", "not JSON"),
        (b"[" * 100_000, 1, None, "nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", 1, None, "too many digits"),
        (b'{"a":\n"\xff"}', 2, "byte 7", "not UTF-8"),
        (b"[1, 2]", 1, None, "not an instance (got 'list'"),
        (b'{"schema": "other"}', None, "schema", "not a job-shop instance"),
        (b"{}", None, "schema", "not a job-shop instance"),
        (b'{"duration_matrix": [[1]]}', None, "machines_matrix", "not a matrix"),
        (
            b'{"duration_matrix": [[1, "2"]], "machines_matrix": [[0, 1]]}',
            None,
            "duration_matrix, job 0, operation 1",
            "",
        ),
        (
            b'{"duration_matrix": [[1, -2]], "machines_matrix": [[0, 1]]}',
            None,
            "job 0, operation 1, duration",
            "negative",
        ),
        (b'{"duration_matrix": [[1]], "machines_matrix": [[0, 1]]}', None, "job 0", "wrong row length"),
    ],
)
def test_bad_content_names_file_line_and_field(tmp_path, content, line, field, part):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        formats.read(path)
    assert caught.value.source == str(path)
    assert (caught.value.line, caught.value.field) == (line, field)
    assert part in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


@pytest.mark.parametrize("content", [STANDARD, TAILLARD, FJS, COLLECTION, json.dumps(TINY.to_json()).encode()])
def test_truncated_files_are_refused_or_shorter_but_sound(content):
    refused = 0
    for cut in range(len(content)):
        try:
            formats.parse(content[:cut], instance=None if content is not COLLECTION else "b2")
        except InputError:
            refused += 1
    assert refused >= len(content) - 3  # a cut last newline or last digit may leave a complete instance


@pytest.mark.parametrize("content", [STANDARD, TAILLARD])
def test_a_row_moved_to_another_shop_is_checked(content):
    with pytest.raises(InputError, match="not a flow shop"):
        formats.parse(content, kind="flow_shop")
    assert formats.parse(content, kind="open_shop").kind == "open_shop"


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        formats.read(tmp_path / "none.txt")
    with pytest.raises(InputError, match="not a regular file"):
        formats.read(tmp_path)
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(InputError, match="not a regular file"):
        formats.read(tmp_path / "pipe.txt")


@pytest.mark.parametrize("suffix", [".txt", ".fjs", ".json"])
@pytest.mark.parametrize(
    "megabytes, unit", [(100, b"7"), (16, b"7"), (16, b"1 "), (16, b"1 1\n"), (16, b"[],"), (16, b"\n")]
)
def test_a_flood_of_digits_is_refused_in_bounded_memory(tmp_path, suffix, megabytes, unit):
    path = tmp_path / f"flood{suffix}"
    with open(path, "wb") as stream:
        if megabytes == 100:
            stream.truncate(100 * 2**20)  # as large as 100 MB of digits, refused before a byte is read
        else:
            block = unit * (2**20 // len(unit))
            for _ in range(megabytes):
                stream.write(block)
            if suffix == ".json":
                stream.write(block)
    tracemalloc.start()
    with pytest.raises(InputError) as caught:
        formats.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.source == str(path)
    assert peak < 64 * 2**20


def test_headers_that_promise_too_much_are_refused_at_once():
    for content in (
        b"200000 100000\n" + b"1 " * 100_000,
        b"999999 2\n0 1 1 1\n",
        b"2 999999\n0 1\n",
        b"200000 9 1\n1 1 1 1\n",
    ):
        with pytest.raises(InputError):
            formats.parse(content)


# ---- fuzzing -------------------------------------------------------------------------------------------------------
SAMPLES = [STANDARD, TAILLARD, FJS, COLLECTION, json.dumps(TINY.to_json()).encode()]
CHOSEN = st.sampled_from([None, *formats.FORMATS])


def reads_or_refuses(content, format):
    try:
        instance = formats.parse(content, format=format, source="fuzz")
    except InputError as error:
        return error
    assert instance.makespan_bound <= instance.horizon
    return None


@settings(max_examples=300)
@given(st.binary(max_size=200), CHOSEN)
def test_random_bytes_give_only_input_errors(content, format):
    reads_or_refuses(content, format)


@settings(max_examples=400)
@given(st.sampled_from(SAMPLES), CHOSEN, st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=4)), max_size=3))
def test_damaged_files_give_only_input_errors(sample, format, damages):
    content = bytearray(sample)
    for place, patch in damages:
        content[place % len(sample) : place % len(sample) + len(patch)] = patch
    reads_or_refuses(bytes(content), format)


TOKENS = st.lists(st.sampled_from([*"0123x#{}[]\n", "-1", "1.5", "99999999999", "la01"]), max_size=40)


@settings(max_examples=300)
@given(TOKENS, CHOSEN)
def test_shuffled_tokens_give_only_input_errors(tokens, format):
    reads_or_refuses(" ".join(tokens).encode(), format)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(TINY.to_json())), inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(max_examples=300)
@given(
    st.dictionaries(st.sampled_from([*TINY.to_json(), "duration_matrix", "machines_matrix"]), JSON_VALUES, max_size=3)
)
def test_json_with_any_values_gives_only_input_errors(changes):
    reads_or_refuses(json.dumps(TINY.to_json() | changes), None)
    reads_or_refuses(json.dumps({"duration_matrix": [[1]], "machines_matrix": [[0]]} | changes), None)


def test_flow_shops_need_their_machines_in_order():
    assert same(
        formats.parse(formats.to_standard(flow_shop([[1, 2]], name="f")), name="f", kind="flow_shop"),
        flow_shop([[1, 2]], name="f"),
    )
