"""What a convolutional layer is made of."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Filters:
    """A convolutional layer."""

    units: int
    size: int  # of the square that a unit sees
    stride: int
    padded: bool = False  # with zeros, such that a stride of 1 would keep the picture's size

    def padding(self, length: int) -> tuple[int, int]:
        """Zeros before and after a side of the picture; the odd one comes after."""
        if not self.padded:
            return 0, 0
        zeros = max((-(-length // self.stride) - 1) * self.stride + self.size - length, 0)
        return zeros // 2, zeros - zeros // 2

    def places(self, length: int) -> int:
        """Positions along a side of the picture."""
        return (length + sum(self.padding(length)) - self.size) // self.stride + 1
