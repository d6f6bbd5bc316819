"""What counts while somebody writes to a repository: two scans that agree."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from server.models.repository import ModelFolder
from server.models.settling import settle
from server.models.stamps import ModelSnapshot, Stamp


def stamp(content: int) -> Stamp:
    return (("file", content, 0),)


def model(shared: int = 0, *, whole: bool = False, **versions: int) -> ModelSnapshot:
    stamps = {int(name[1:]): stamp(content) for name, content in versions.items()}
    return ModelSnapshot(ModelFolder("m", Path("m"), tuple(sorted(stamps))), stamp(shared), stamps, whole)


def follow(start: ModelSnapshot | None, *scans: ModelSnapshot | None) -> ModelSnapshot | None:
    """What is gone by after these scans, the first of which is taken as it is."""
    settled = before = {} if start is None else {"m": start}
    for scan in scans:
        now = {} if scan is None else {"m": scan}
        settled, before = settle(settled, before, now), now
    return settled.get("m")


def test_a_new_version_counts_when_it_is_seen_the_same_twice() -> None:
    old, half, whole = model(v1=1), model(v1=1, v2=5), model(v1=1, v2=9)
    assert follow(old, half) == old
    assert follow(old, half, whole) == old
    assert follow(old, half, whole, whole) == whole


def test_a_version_that_is_written_over_counts_as_it_was_until_it_is_still() -> None:
    old, half, whole = model(v1=1), model(v1=5), model(v1=9)
    assert follow(old, half) == old
    assert follow(old, half, whole) == old
    assert follow(old, half, whole, whole) == whole


def test_a_version_counts_as_there_until_it_is_missing_twice() -> None:
    both, one = model(v1=1, v2=2), model(v2=2)
    assert follow(both, one) == both
    assert follow(both, one, both) == both
    assert follow(both, one, one) == one


def test_a_model_counts_as_there_until_it_is_missing_twice() -> None:
    old = model(v1=1)
    assert follow(old, None) == old
    assert follow(old, None, old) == old
    assert follow(old, None, None) is None


def test_a_new_model_counts_when_one_of_its_versions_does() -> None:
    assert follow(None, model()) is None
    assert follow(None, model(), model(v1=1)) is None
    assert follow(None, model(), model(v1=1), model(v1=1, v2=3)) == model(v1=1)
    assert follow(None, model(), model()) == model()


def test_the_files_beside_the_versions_settle_by_themselves() -> None:
    assert follow(model(1, v1=1), model(2, v1=1), model(2, v1=5)) == model(2, v1=1)


def test_what_only_changes_as_a_whole_counts_at_once() -> None:
    assert follow(model(v1=1, whole=True), model(7, v1=2, v2=3, whole=True)) == model(7, v1=2, v2=3, whole=True)


SCANS = st.one_of(
    st.none(), st.builds(lambda shared, versions: model(shared, **versions), st.integers(0, 2),
                         st.dictionaries(st.sampled_from(["v1", "v2"]), st.integers(0, 2)))
)  # fmt: skip


@given(SCANS, st.lists(SCANS, max_size=6))
def test_nothing_counts_that_two_scans_in_a_row_did_not_see_and_stillness_settles_everything(
    start: ModelSnapshot | None, scans: list[ModelSnapshot | None]
) -> None:
    settled = follow(start, *scans)
    seen = [start, start, *scans]
    agreed = {
        (version, content)
        for one, other in pairwise(seen)
        if one is not None and other is not None
        for version, content in one.versions.items()
        if other.versions.get(version) == content
    }
    assert settled is None or set(settled.versions.items()) <= agreed
    last = seen[-1]
    assert follow(start, *scans, last) == last
