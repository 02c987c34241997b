"""Searches by clusters and for the farthest query, against all distances."""

import numpy as np
import pytest
from defectflow.search import nearest_in_numpy
from defectflow.search.clusters import Clusters
from defectflow.search.nearest_in_numpy import Points
from hypothesis import given
from hypothesis import strategies as st


@st.composite
def clouds(draw):
    """Points and queries in groups, some of them equal, and some far from all points."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    dimensions, groups = draw(st.integers(1, 70)), draw(st.integers(1, 9))
    centres = rng.normal(0, draw(st.sampled_from([0.0, 1.0, 30.0])), (groups, dimensions)) + 7

    def some(count):
        values = centres[rng.integers(0, groups, count)] + rng.normal(size=(count, dimensions))
        return np.round(values, draw(st.sampled_from([0, 4]))).astype(np.float32)

    points, queries = some(draw(st.integers(1, 700))), some(draw(st.integers(1, 90)))
    queries[: draw(st.integers(0, 3))] += draw(st.sampled_from([0.0, 5.0, 1e3]))
    again = draw(st.integers(0, min(len(points), len(queries))))
    queries[len(queries) - again :] = points[:again]
    return points, queries


def by_differences(points, queries):
    """Distances to the nearest points in float32, and the lowest index of those."""
    squares = np.stack([np.einsum("ij,ij->i", points - query, points - query) for query in queries])
    return np.sqrt(squares.min(axis=1)), squares.argmin(axis=1)


@given(clouds())
def test_the_nearest_is_that_of_all_differences_bit_by_bit(cloud):
    distances, indices = by_differences(*cloud)
    points = Points(cloud[0])
    begun = points.begin(cloud[1])
    for found in (points.nearest(cloud[1]), points.nearest(cloud[1], begun), points._among_all(cloud[1])):
        np.testing.assert_array_equal(found[0], distances)
        np.testing.assert_array_equal(found[1], indices)


@given(clouds())
def test_the_farthest_query_is_among_the_few_that_are_measured(cloud):
    distances, indices = by_differences(*cloud)
    found = Points(cloud[0]).farthest(cloud[1])
    np.testing.assert_array_equal(found.distances, distances[found.rows])
    np.testing.assert_array_equal(found.indices, indices[found.rows])
    assert found.rows[found.distances.argmax()] == distances.argmax()
    assert (np.diff(found.rows) > 0).all() and (found.bounds >= distances).all()
    assert found.bounds.max() == distances.max()


@given(clouds(), st.integers(0, 10**6), st.integers(1, 12))
def test_neighbours_of_a_point_are_those_by_all_differences(cloud, index, count):
    points = cloud[0]
    index, count = index % len(points), min(count, len(points))
    squares = np.square(points - points[index]).sum(axis=1)
    expected = np.argsort(squares, kind="stable")[:count]
    np.testing.assert_array_equal(Points(points).around(index, count), expected)


def test_of_many_queries_few_are_measured():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20, 64)).astype(np.float32)[rng.integers(0, 20, 4000)]
    points += rng.normal(0, 0.1, points.shape).astype(np.float32)
    queries = points[:1000] + rng.normal(0, 0.05, (1000, 64)).astype(np.float32)
    queries[123] += 1
    found = Points(points).farthest(queries)
    assert len(found.rows) < 100 and 123 in found.rows and found.bounds.argmax() == 123


def test_clusters_that_drop_nothing_are_left_out_for_a_while():
    rng = np.random.default_rng(0)
    points, queries = (rng.normal(size=(count, 60)).astype(np.float32) for count in (2000, 40))
    search = Points(points)
    assert search._near(queries, search.begin(queries)) is None  # all in one place: every cluster may hold the nearest
    distances, indices = search.nearest(queries)
    assert search._clustered_from == 1 + nearest_in_numpy._TRY
    np.testing.assert_array_equal(distances, by_differences(points, queries)[0])
    np.testing.assert_array_equal(indices, by_differences(points, queries)[1])


@given(clouds())
def test_no_cluster_that_holds_the_nearest_is_dropped(cloud):
    points, queries = cloud
    clusters, (distances, indices) = Clusters(points), by_differences(*cloud)
    assert clusters.sizes.sum() == len(points) and (clusters.sizes > 0).all()
    places = clusters.places(queries)
    member = np.repeat(np.arange(len(clusters.sizes)), clusters.sizes)[np.argsort(clusters._order)]
    assert clusters.near(places, distances)[np.arange(len(queries)), member[indices]].all()
    assert (clusters._order[np.argsort(clusters._order)] == np.arange(len(points))).all()
    likely = clusters.likely(places)
    assert (member[likely] == places.own).all()


@pytest.mark.parametrize("count", [1, 15, 16, 33, 5000])
def test_small_banks_have_clusters_too(count):
    points = np.random.default_rng(count).normal(size=(count, 5)).astype(np.float32)
    found = Points(points).farthest(points[:1] + 9)
    assert found.rows.tolist() == [0] and found.distances[0] == by_differences(points, points[:1] + 9)[0][0]


def test_tables_kept_beside_the_points_give_the_same_to_the_last_bit():
    rng = np.random.default_rng(3)
    points, queries = (rng.normal(size=(n, 60)).astype(np.float32) * np.arange(60, 0, -1) for n in (700, 90))
    computed = Points(points.astype(np.float32))
    kept = Points(computed.points, {key: value.copy() for key, value in computed.tables().items()})
    for one, other in zip(computed.farthest(queries), kept.farthest(queries), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(computed.nearest(queries), kept.nearest(queries), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(computed.around(5, 9), kept.around(5, 9))
