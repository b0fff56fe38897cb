"""What torch makes and computes in, whatever the calling process has set.

    with own_defaults("cuda"):
        model = Model()                          # float32, on the CPU until it is moved

A notebook or another library may have changed torch's default dtype or device or the precision of products, or be
within an autocast: models would then be drawn, and sentences embedded, in other numbers.
"""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def own_defaults(device_type: str = "cpu") -> Iterator[None]:
    """Within the block torch makes float32 on the CPU where it is not told otherwise; after it, what it made before.

    Args:
        device_type: Where is computed; an autocast and products in less than float32 are off there within the block.
    """
    dtype = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        if dtype != torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if torch.is_autocast_enabled(device_type):
            stack.enter_context(torch.autocast(device_type, enabled=False))
        products = torch.backends.cuda.matmul if device_type == "cuda" else torch.backends.mkldnn.matmul
        precision = products.fp32_precision
        if precision in ("tf32", "bf16"):
            inherited = precision == torch.backends.fp32_precision
            stack.callback(setattr, products, "fp32_precision", "none" if inherited else precision)
            products.fp32_precision = "ieee"
        yield
