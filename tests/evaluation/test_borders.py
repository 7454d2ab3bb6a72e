"""Borders and surface elements of masks, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from spadunet.evaluation.borders import border, box_around, surface_elements


def test_border_of_a_cube_is_all_but_its_core():
    cube = np.zeros((5, 5, 5), bool)
    cube[1:4, 1:4, 1:4] = True
    expected = cube.copy()
    expected[2, 2, 2] = False
    assert np.array_equal(border(cube), expected)


def test_beyond_the_array_is_outside_the_mask():
    expected = np.ones((3, 3, 3), bool)
    expected[1, 1, 1] = False
    assert np.array_equal(border(np.ones((3, 3, 3), bool)), expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_border_of_one_slice_is_its_contour(axis: int):
    contour = np.ones((4, 4), bool)
    contour[1:3, 1:3] = False
    mask = np.expand_dims(np.ones((4, 4), bool), axis)
    assert np.array_equal(border(mask), np.expand_dims(contour, axis))


def test_beyond_the_array_can_be_inside_the_mask():
    mask = np.zeros((3, 4, 5), bool)
    mask[:2] = True
    expected = np.zeros_like(mask)
    expected[1] = True
    assert np.array_equal(border(mask, image_edge_is_border=False), expected)
    assert not border(np.ones((3, 4, 5), bool), image_edge_is_border=False).any()


def test_a_mask_is_left_as_it_is():
    mask = np.ones((3, 3, 3), bool)
    border(mask)
    surface_elements(mask, (1.0, 1.0, 1.0))
    assert mask.all()


def test_the_surface_around_a_voxel_is_an_octahedron():
    """Its corners lie half a step from the centre: 8 triangles of side sqrt(0.5)."""
    voxel = np.zeros((3, 3, 3), bool)
    voxel[1, 1, 1] = True
    elements, areas = surface_elements(voxel, (1.0, 1.0, 1.0))
    assert elements.shape == (4, 4, 4)
    assert np.argwhere(elements).tolist() == [[d, h, w] for d in (1, 2) for h in (1, 2) for w in (1, 2)]
    assert areas == pytest.approx([np.sqrt(3) / 4 * 0.5] * 8)


def test_the_surface_of_a_layer_has_its_area():
    """A layer across the array, 6 mm by 8 mm, and its rim of half a voxel."""
    layer = np.zeros((5, 3, 4), bool)
    layer[2] = True
    elements, areas = surface_elements(layer, (9.0, 2.0, 2.0))
    inner = elements.copy()
    inner[:, [0, -1]] = inner[:, :, [0, -1]] = False
    assert areas[inner[elements]].tolist() == [4.0] * (2 * 2 * 3)


def test_the_contour_of_one_slice_has_its_length():
    """A square of 3 by 3 pixels of 0.5 by 2 mm: between the pixels' middles 1 + 1 + 4 + 4 mm, and 4 cut corners."""
    square = np.zeros((1, 5, 5), bool)
    square[0, 1:4, 1:4] = True
    elements, lengths = surface_elements(square, (7.0, 0.5, 2.0))
    assert elements.shape == (1, 6, 6)
    assert lengths.sum() == pytest.approx(10 + 4 * np.hypot(0.25, 1.0))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 5), (1, 4, 1), (3, 1, 1), (2, 1, 3)])
def test_thin_arrays_have_borders_and_elements(shape: tuple[int, int, int]):
    mask = np.zeros(shape, bool)
    mask[0, 0, 0] = True
    assert border(mask).sum() == 1
    elements, areas = surface_elements(mask, (1.0, 1.0, 1.0))
    assert elements.sum() == len(areas) == 4  # four cut corners in the plane
    assert areas == pytest.approx([np.sqrt(0.5)] * 4)


def test_a_box_leaves_a_voxel_around_where_there_is_one():
    mask = np.zeros((4, 5, 6), bool)
    mask[0, 2, 2:5] = True
    assert mask[box_around(mask)].shape == (2, 3, 5)
    assert box_around(np.ones((1, 1, 1), bool)) == (slice(0, 2),) * 3
