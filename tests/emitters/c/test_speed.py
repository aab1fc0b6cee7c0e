"""What the compiler makes of the inner loops, where it may use vectors."""

import platform
import re
import subprocess

import pytest

from qat.emitters.c.compiler import INTEGER_ONLY, compiler_version, needed_compiler
from qat.emitters.c.forms.rescale import RESCALE
from qat.emitters.c.forms.weighted import ACCUMULATE, MULTIPLY
from qat.emitters.c.kernels import KernelTexts
from qat.emitters.c.types import S8, U8

GCC_X86 = platform.machine() == "x86_64" and "clang" not in compiler_version()


def vectorized_lines(path, flags):
    """The lines of loops that gcc says it vectorizes."""
    command = [needed_compiler(), "-std=c99", "-c", *flags, "-fopt-info-vec-optimized", str(path), "-o", "/dev/null"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return {int(line) for line in re.findall(r":(\d+):\d+: optimized:\s+loop vectorized", result.stderr)}


@pytest.mark.skipif(not GCC_X86, reason="what gcc says of x86 vectors")
@pytest.mark.parametrize("kind", [U8, S8])
@pytest.mark.parametrize("kernel", [MULTIPLY, ACCUMULATE, RESCALE])
def test_inner_loops_over_bytes_are_vectors(tmp_path, kernel, kind):
    texts = KernelTexts()
    texts.need(kernel, (kind,))
    text = "#include <stdint.h>\n" + "\n".join(texts.texts).replace("static void", "void")
    path = tmp_path / "kernel.c"
    path.write_text(text)
    # all but those of a few known steps
    loops = {number for number, line in enumerate(text.splitlines(), 1) if re.search(r"i < (count|size); i\+\+", line)}
    assert loops and loops <= vectorized_lines(path, ["-O3", "-msse4.1"])
    assert not vectorized_lines(path, ["-O3", INTEGER_ONLY])


@pytest.mark.skipif(not GCC_X86, reason="what gcc makes for x86")
def test_four_products_of_bytes_are_one_instruction_where_the_processor_has_it(tmp_path):
    texts = KernelTexts()
    texts.need(MULTIPLY, (U8,))
    path = tmp_path / "kernel.c"
    path.write_text("#include <stdint.h>\n" + "\n".join(texts.texts).replace("static void", "void"))
    command = [needed_compiler(), "-std=c99", "-S", "-O3", "-mavx512vnni", "-mavx512vl", str(path), "-o", "-"]
    assembly = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "vpdpbusd" in assembly
