"""Areas of surface elements, by hand and against surface-distance's table."""

from __future__ import annotations

import numpy as np
import pytest

from spadunet.evaluation.element_areas import CORNERS, element_areas
from spadunet.spacing import Spacing


def code(*corners: tuple[int, int, int]) -> int:
    """Code of the cube in which these corners lie in the mask."""
    return sum(1 << CORNERS.index(corner) for corner in corners)


def test_one_corner_is_cut_off_by_a_triangle():
    assert element_areas((1.0, 1.0, 1.0))[code((0, 1, 0))] == pytest.approx(np.sqrt(3) / 8)


def test_an_edge_is_cut_off_by_a_rectangle():
    """Along the edge 5 mm, across it from middle to middle of 0.6 and 0.8 mm."""
    assert element_areas((5.0, 0.6, 0.8))[code((0, 0, 0), (1, 0, 0))] == pytest.approx(5 * 0.5)


def test_a_face_is_cut_off_by_a_face():
    face = code((0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 0, 1))
    assert element_areas((5.0, 0.7, 0.8))[face] == pytest.approx(5 * 0.8)


def test_a_corner_with_its_neighbours_is_cut_off_by_a_regular_hexagon():
    star = code((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))
    assert element_areas((1.0, 1.0, 1.0))[star] == pytest.approx(3 * np.sqrt(3) / 2 * 0.5)


def test_three_corners_of_a_face_are_cut_off_by_a_triangle_and_a_trapezium():
    """The triangle is half a face; the trapezium lies where the coordinates sum to 1.5, between sides 0.5 and 1."""
    bent = code((0, 0, 0), (0, 0, 1), (0, 1, 0))
    assert element_areas((1.0, 1.0, 1.0))[bent] == pytest.approx(0.5 + 3 * np.sqrt(3) / 8)


def test_corners_apart_are_cut_off_apart():
    areas = element_areas((1.0, 2.0, 3.0))
    assert areas[code((0, 0, 0), (1, 1, 1))] == pytest.approx(2 * areas[code((0, 0, 0))])
    assert areas[code((0, 0, 0), (0, 1, 1))] == pytest.approx(2 * areas[code((0, 0, 0))])


def test_nothing_and_all_have_no_surface_and_inside_out_is_the_same():
    areas = element_areas((5.0, 0.7, 0.8))
    assert areas[0] == areas[255] == 0
    assert (areas[1:255] > 0).all()
    assert areas == pytest.approx(areas[::-1])


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (5.0, 0.7, 0.8), (0.3, 2.5, 1.1), (3.0, 0.76, 0.76)])
def test_all_codes_equal_surface_distance(spacing_mm: Spacing):
    tables = pytest.importorskip("surface_distance.lookup_tables")
    weights = tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL  # (2, 2, 2), theirs
    theirs = [sum(int(weights[at]) for bit, at in enumerate(CORNERS) if number >> bit & 1) for number in range(256)]
    expected = tables.create_table_neighbour_code_to_surface_area(spacing_mm)[theirs]
    assert element_areas(spacing_mm) == pytest.approx(expected, rel=1e-15, abs=0)
