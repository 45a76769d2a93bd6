"""Builds bitops._core: Cython over the C kernels. Metadata is in pyproject.toml.

Environment variables read at build time:
  BITOPS_NO_OPENMP=1   build single-threaded (also done when the compiler has no OpenMP)
  BITOPS_CHECKED=1     Cython bounds and None checks, C assertions; less optimised, to build fast
  SOURCE_DATE_EPOCH    time of all files in the sdist and the wheel, which are then the same bytes
                       wherever and whenever they are built (tests/wheel/reproducible)
"""

import gzip
import os
import shlex
import sys
import sysconfig
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist
from setuptools.errors import CompileError, LinkError

KERNELS = Path("bitops/_kernels")
INCLUDE = Path("python/bitops/include")  # what C programs of others include
CHECKED = os.environ.get("BITOPS_CHECKED") == "1"

# No fused multiply-add: scaled outputs must round alike on every ISA. No -march: kernels choose
# their instructions by target regions and are chosen at run time. No errno: else a root would be a
# call of its own, and no loop with one would become vectors.
COMPILE_ARGS = [
    "-std=c11",
    "-O1" if CHECKED else "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fvisibility=hidden",
]
OPENMP = "-fopenmp"

# For Windows: Clang, with headers and libraries of the system, from the build requirement ziglang.
# MSVC has no GNU inline assembly and no target regions; GCC misaligns spilled 32-byte vectors. With
# a target named, it compiles for any x86-64, not for the processor it runs on.
WINDOWS_CC = f'"{Path(sys.executable).as_posix()}" -m ziglang cc -target x86_64-windows-gnu'

OPENMP_PROGRAM = """
#include <omp.h>
int main(void) { return omp_get_max_threads() < 1; }
"""


class BuildExt(build_ext):
    """build_ext that adds OpenMP where the compiler has it, and compiles with Clang on Windows."""

    def finalize_options(self):
        super().finalize_options()
        if sys.platform == "win32":
            if sysconfig.get_platform() != "win-amd64":
                raise CompileError("bitops: of Windows, only the 64-bit one on x86-64 is supported")
            if self.compiler is None:
                self.compiler = "mingw32"
                os.environ.setdefault("CC", WINDOWS_CC)

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            raise CompileError(
                "bitops: MSVC cannot compile the kernels, which use GNU inline assembly and target "
                "regions; build without --compiler, to use the Clang of the package ziglang"
            )
        compile_flags, link_flags = [], []
        if os.environ.get("BITOPS_NO_OPENMP") != "1" and self.has_openmp():
            compile_flags.append(OPENMP)
            link_flags.append(OPENMP)
        else:
            print("bitops: building without OpenMP, single-threaded")
        if sys.platform == "win32":
            # The linker's import library, which would go into the wheel beside the extension.
            library = Path(self.build_temp, "_core.lib").as_posix()
            link_flags.append(f"-Wl,--out-implib,{library}")
        elif not self.inplace and not CHECKED and "-g" not in os.environ.get("CFLAGS", ""):
            # No debug information, which Python's own flags ask for: it is four fifths of a wheel,
            # names the folder of the build, and takes a third of the time to compile.
            compile_flags.append("-g0")
            link_flags.append("-Wl,-S")
        for extension in self.extensions:
            extension.extra_compile_args += compile_flags
            extension.extra_link_args += link_flags
        self.compile_in_parallel()
        super().build_extensions()

    def compile_in_parallel(self):
        """Compile as many files at a time as there are cores: setuptools takes one by one."""
        compile_files = self.compiler.compile

        def compile_each(sources, *args, **options):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                made = pool.map(lambda source: compile_files([source], *args, **options), sources)
                return [name for names in made for name in names]

        self.compiler.compile = compile_each

    def has_openmp(self):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "openmp.c")
            source.write_text(OPENMP_PROGRAM)
            try:
                objects = self.compiler.compile(
                    [str(source)], output_dir=folder, extra_postargs=[OPENMP]
                )
                # As the extension is linked: CFLAGS may need their counterparts.
                flags = shlex.split(os.environ.get("LDFLAGS", ""))
                self.compiler.link_executable(
                    objects, str(Path(folder, "openmp")), extra_postargs=[OPENMP, *flags]
                )
            except (CompileError, LinkError):
                return False
        return True


class SDist(sdist):
    """sdist whose archive depends on its files alone, if SOURCE_DATE_EPOCH is set."""

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, **owners):
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        if epoch is None or format != "gztar":
            return super().make_archive(base_name, format, root_dir, base_dir, **owners)

        def plain(member):
            member.mtime, member.uid, member.gid = int(epoch), 0, 0
            member.uname = member.gname = ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            return member

        path = Path(f"{base_name}.tar.gz")
        with (
            path.open("wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=int(epoch)) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for member in sorted(Path(base_dir).rglob("*")):
                archive.add(member, recursive=False, filter=plain)
        return str(path)


core = Extension(
    "bitops._core",
    sources=[
        "bitops/_core.pyx",
        "bitops/c_api.c",
        *sorted(str(path) for path in KERNELS.rglob("*.c")),
    ],
    depends=[
        "bitops/c_api.h",
        str(INCLUDE / "bitops_api.h"),
        *sorted(str(path) for pattern in ("*.h", "*.inc") for path in KERNELS.rglob(pattern)),
    ],
    include_dirs=["bitops", str(KERNELS), str(INCLUDE), numpy.get_include()],
    extra_compile_args=COMPILE_ARGS,
    define_macros=[] if CHECKED else [("NDEBUG", None)],
    undef_macros=["NDEBUG"] if CHECKED else [],
)

setup(
    package_dir={"": "python"},
    packages=[*find_packages("python"), "bitops.include"],
    py_modules=["bitops_command"],
    package_data={
        "bitops": ["py.typed", "*.pyi", "*.pxd", "zoo/*.json", "zoo/*.safetensors"],
        "bitops.include": ["*.h"],
    },
    ext_modules=cythonize(
        [core],
        compiler_directives={
            "language_level": 3,
            "boundscheck": CHECKED,
            "wraparound": False,
            "nonecheck": CHECKED,
            "initializedcheck": CHECKED,
            "cdivision": True,
            "freethreading_compatible": True,  # Py_MOD_GIL_NOT_USED
        },
    ),
    cmdclass={"build_ext": BuildExt, "sdist": SDist},
)
