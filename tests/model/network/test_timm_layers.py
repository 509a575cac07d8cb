"""Importing the network does not import torch's compiler, and what stands in for that works as the compiler does."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from model.network import timm_layers


@pytest.mark.slow
def test_a_process_that_segments_does_not_import_the_compiler_of_torch() -> None:
    script = "import sys, model.predictor; print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_function_that_timm_keeps_from_the_compiler_is_kept_from_it() -> None:
    disabled = timm_layers._disable(lambda number: (number, torch.compiler.is_compiling()))
    compiled = torch.compile(lambda number: disabled(number + 1), backend="eager")
    assert compiled(torch.ones(())) == (torch.tensor(2.0), False)


def test_what_can_be_compiled_is_what_the_compiler_names() -> None:
    import torch._dynamo.utils

    for device in ("cpu", "meta"):
        assert timm_layers._is_compile_supported(device) == torch._dynamo.utils.is_compile_supported(device)
