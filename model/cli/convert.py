"""Convert a SimpleClick or RefCut checkpoint to weights for this library.

python -m model convert cocolvis_vit_base.pth vit_b16.safetensors
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model.checkpoints.official import convert
from model.cli.common import command_parser
from model.errors import WeightsError


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Input that cannot be used ends in one line on stderr and exit status 2."""
    parser = command_parser("convert", __doc__)
    parser.add_argument("source", type=Path, help="checkpoint in the official layout (.pth)")
    parser.add_argument("target", type=Path, help="file to write (.safetensors)")
    arguments = parser.parse_args(argv)
    if arguments.target.suffix != ".safetensors":
        parser.error(f"{arguments.target} must end in .safetensors")
    try:
        config = convert(arguments.source, arguments.target)
    except (WeightsError, OSError) as error:
        parser.error(str(error))
    print(
        f"{arguments.target}: {config.depth} blocks of {config.embed_dim}, {config.heads} heads, "
        f"patch {config.patch_px} px, images of {config.network_px} px"
    )
