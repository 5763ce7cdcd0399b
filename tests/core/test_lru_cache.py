"""The LRU cache keeps the entries that were used last, up to a number and a size."""

from hypothesis import given
from hypothesis import strategies as st

from xzepr.core.lru_cache import LRUCache


def test_least_recently_used_entry_is_evicted() -> None:
    cache = LRUCache[str, int](2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert [cache.get(key) for key in "abc"] == [1, None, 3]


def test_membership_test_does_not_use_an_entry() -> None:
    cache = LRUCache[str, int](2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert "a" in cache
    cache.put("c", 3)
    assert "a" not in cache


def test_replaced_entry_is_the_newest() -> None:
    cache = LRUCache[str, int](2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.put("a", 3)
    cache.put("c", 4)
    assert [cache.get(key) for key in "abc"] == [3, None, 4]


def test_size_evicts_oldest_entries() -> None:
    cache = LRUCache[str, str](10, max_size=5, size_of=len)
    for value in ("aa", "bb", "cc"):
        cache.put(value, value)
    assert [key for key in ("aa", "bb", "cc") if key in cache] == ["bb", "cc"]
    cache.put("large", "ddddd")
    assert len(cache) == 1
    cache.put("too large", "eeeeee")
    assert len(cache) == 0
    cache.put("aa", "aa")
    assert "aa" in cache


def test_removed_entries_free_their_size() -> None:
    cache = LRUCache[str, str](10, max_size=5, size_of=len)
    cache.put("a", "aaaaa")
    assert cache.pop("a") == "aaaaa"
    assert cache.pop("a") is None
    cache.put("b", "bbbbb")
    cache.clear()
    cache.put("c", "ccccc")
    cache.put("c", "cc")
    cache.put("d", "ddd")
    assert len(cache) == 2


def test_cache_without_entries_keeps_nothing() -> None:
    cache = LRUCache[str, int](0)
    cache.put("a", 1)
    assert (cache.get("a"), len(cache)) == (None, 0)


@given(st.lists(st.tuples(st.sampled_from(["get", "put", "pop"]), st.integers(0, 6), st.integers(1, 4))))
def test_cache_behaves_like_a_list_of_recent_entries(calls: list[tuple[str, int, int]]) -> None:
    cache = LRUCache[int, int](4, max_size=9, size_of=int)
    model: list[tuple[int, int]] = []  # the entry used last at the end
    for call, key, value in calls:
        expected = dict(model).get(key)
        rest = [entry for entry in model if entry[0] != key]
        if call == "get":
            assert cache.get(key) == expected
            model = rest if expected is None else [*rest, (key, expected)]
        elif call == "pop":
            assert cache.pop(key) == expected
            model = rest
        else:
            cache.put(key, value)
            model = [*rest, (key, value)]
            while len(model) > 4 or sum(size for _, size in model) > 9:
                del model[0]
        assert len(cache) == len(model)
        assert all(key in cache for key, _ in model)
