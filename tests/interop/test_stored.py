"""Arrays in files, put together and read in parts, against NumPy."""

import numpy as np
import pytest

from optiml_jax.interop.stored import Cut, InFile, InMemory, Joined, Unflattened, differs, whole

VALUES = np.arange(60, dtype=np.float32).reshape(6, 10)
PART = ((1, 5), (2, 7))


def in_memory(_):
    return InMemory(VALUES)


def in_file(path):
    path.write_bytes(b"head" + VALUES.tobytes())
    return InFile(path, VALUES.dtype, VALUES.shape, 4)


def transposed(path):
    path.write_bytes(VALUES.T.tobytes())
    return InFile(path, VALUES.dtype, VALUES.shape, 0, (1, 6))


def cut(_):
    return Cut(InMemory(np.pad(VALUES, ((0, 0), (3, 4)))), 1, 3, 13)


def joined_rows(_):
    return Joined([InMemory(VALUES[:2]), InMemory(VALUES[2:3]), InMemory(VALUES[3:])], 0)


def joined_columns(_):
    return Joined([InMemory(VALUES[:, :4]), InMemory(VALUES[:, 4:])], 1)


def unflattened(_):
    flat = np.concatenate([[7.0, 7.0], VALUES.reshape(-1), [9.0]]).astype(np.float32)
    return Unflattened(Joined([InMemory(flat[:31]), InMemory(flat[31:])], 0), 2, (6, 10))


@pytest.mark.parametrize(
    "make", [in_memory, in_file, transposed, cut, joined_rows, joined_columns, unflattened]
)
def test_a_part_is_numpys(make, tmp_path):
    array = make(tmp_path / "values")
    assert array.shape == VALUES.shape
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array.read(PART), VALUES[1:5, 2:7])
    np.testing.assert_array_equal(array.read(whole(array)), VALUES)
    assert array.read(((2, 2), (0, 10))).shape == (0, 10)


def test_only_the_rows_asked_for_are_opened(tmp_path):
    missing = InFile(tmp_path / "none", np.dtype(np.float32), (3, 10), 0)
    array = Joined([InMemory(VALUES[:3]), missing], 0)
    np.testing.assert_array_equal(array.read(((1, 3), (0, 10))), VALUES[1:3])
    with pytest.raises(FileNotFoundError):
        array.read(((1, 4), (0, 10)))


def test_differences_are_found_in_any_row():
    other = VALUES.copy()
    other[5, 9] += 0.5
    assert differs(InMemory(VALUES), InMemory(other), rows=4) == 0.5
    assert differs(InMemory(VALUES), InMemory(VALUES.copy()), rows=4) == 0.0
    other[0, 0] = np.nan
    assert differs(InMemory(VALUES), InMemory(other), rows=4) == np.inf
