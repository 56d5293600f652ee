"""Orders: what is refused before a bulk run begins is what the local engine refuses."""

import pytest
from PIL import Image

from srcli.bulk.orders import take_orders
from srcli.errors import InputError, OutputError, UsageError
from srcli.imaging import files
from srcli.inference import jobs
from srcli.inference.jobs import plan_jobs
from srcli.inference.sizes import Goal
from srcli.inference.sources import expand_inputs


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A function that makes small pictures in a working folder."""
    monkeypatch.chdir(tmp_path)

    def make_all(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), "green").save(path)

    return make_all


@pytest.fixture
def looked_at(monkeypatch):
    """The pictures whose headers were read."""
    seen = []

    def probe(source, *, name, frame):
        seen.append(name)
        return files.probe_picture(source, name=name, frame=frame)

    monkeypatch.setattr(jobs, "probe_picture", probe)
    return seen


def take(naming, *inputs):
    return take_orders(expand_inputs(inputs, recursive=True), naming)[1]


def test_only_what_is_in_the_way_is_looked_into(make, make_naming, looked_at):
    make("in/a.png", "in/sub/b.jpg", "out/other_bicubic_x2.png")
    orders = take(make_naming(), "in")
    assert [order.source.name for order in orders] == ["in/a.png", "in/sub/b.jpg"]
    assert [str(order.home) for order in orders] == ["out", "out/sub"]
    assert [order.there for order in orders] == [(), ()]
    assert looked_at == []
    make("out/a_bicubic_x2.png")
    with pytest.raises(OutputError, match=r"out/a_bicubic_x2\.png exists already"):
        take(make_naming(), "in")
    assert looked_at == ["in/a.png"]
    orders = take(make_naming(existing="skip"), "in")
    assert [order.there for order in orders] == [("a_bicubic_x2.png",), ()]
    take(make_naming(existing="overwrite"), "in")
    assert looked_at == ["in/a.png"]


def test_a_result_of_another_format_is_not_in_the_way(make, make_naming):
    make("in/photo.jpg", "out/photo_bicubic_x2.png")
    take(make_naming(), "in/photo.jpg")
    with pytest.raises(OutputError, match="exists already"):
        take(make_naming(format="png"), "in/photo.jpg")


@pytest.mark.parametrize(
    ("options", "result"),
    [
        ({"goal": Goal(None, 16)}, "a_bicubic_16x16.png"),
        ({"suffix": "_big"}, "a_big.png"),
        ({"suffix": ""}, "a.png"),
        ({"compare": True}, "a_bicubic_x2.png.html"),
    ],
    ids=["sized", "suffix", "plain", "page"],
)
def test_results_are_known_by_whatever_name_they_have(
    options, result, make, make_naming, tmp_path
):
    make("in/a.png", "in/b.png", "out/c.png")
    (tmp_path / "out" / result).touch()
    with pytest.raises(OutputError, match="exists already"):
        take(make_naming(**options), "in")


def test_a_result_of_a_frame_or_of_one_named_file_is_known(make, make_naming):
    frames = [Image.new("L", (8, 8), level) for level in (0, 255)]
    make("a.png", "b.png", "out/a_frame2_bicubic_x2.tif")
    frames[0].save("a.tif", save_all=True, append_images=frames[1:])
    take(make_naming(frame=1), "a.tif")
    with pytest.raises(OutputError, match="a_frame2_bicubic_x2"):
        take(make_naming(frame=2), "a.tif")
    with pytest.raises(OutputError, match=r"b\.png exists already"):
        take(make_naming("b.png"), "a.png")
    (order,) = take(make_naming("c.png"), "a.png")
    assert order.there == ()


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        (["in/a.png", "in/a.jpg"], {"format": "png"}),
        (["in/a.png", "two/a.png"], {}),
        (["in/b.png", "in/b_bicubic_x2.png"], {"output": "in"}),
        (["in/a.png"], {"output": "in", "suffix": "", "existing": "overwrite"}),
        (["in/a.png", "two/a.png"], {"output": "x.png"}),
        (["in/a.png"], {"output": "nowhere/x.png"}),
    ],
)
def test_both_engines_refuse_alike(inputs, options, make, make_naming):
    make("in/a.png", "in/a.jpg", "in/b.png", "in/b_bicubic_x2.png", "two/a.png")
    naming, sources = make_naming(**options), expand_inputs(inputs)
    with pytest.raises((UsageError, OutputError)) as local:
        plan_jobs(sources, naming)
    with pytest.raises(type(local.value)) as bulk:
        take_orders(sources, naming)
    assert str(bulk.value) == str(local.value)


def test_what_cannot_be_done_elsewhere(make, make_naming):
    make("in/a.png", "out/a_bicubic_x2.png")
    with pytest.raises(InputError, match="nothing to do"):
        take(make_naming(), "out")
    with pytest.raises(UsageError, match="no standard input or output"):
        take(make_naming("-"), "in/a.png")
    with pytest.raises(UsageError, match="this process's own"):
        take(make_naming("memory://x/"), "in")
