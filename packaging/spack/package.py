"""Recipe for Spack from 1.0 on. Copy it to packages/qwen3_mpi of a repository of yours, and build in the root of the
source: spack dev-build qwen3-mpi@0.1.0"""
from spack_repo.builtin.build_systems.cmake import CMakePackage

from spack.package import *


class Qwen3Mpi(CMakePackage):
    """Qwen3 language models on CPUs and clusters of CPUs: a C library and programs."""

    license("Apache-2.0")
    version("0.1.0")

    variant("mpi", default=True, description="Several ranks, by MPI")
    variant("server", default=True, description="qwen3 serve")

    depends_on("c", type="build")
    depends_on("cmake@3.18:", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("jansson")
    depends_on("utf8proc+shared")
    depends_on("hwloc")
    depends_on("popt")
    depends_on("libedit")
    depends_on("mpi", when="+mpi")
    depends_on("libmicrohttpd@0.9.71:", when="+server")

    conflicts("%gcc@:10")
    conflicts("%clang@:13")

    def cmake_args(self):
        return [
            self.define_from_variant("QWEN3_MPI", "mpi"),
            self.define_from_variant("QWEN3_SERVER", "server"),
            self.define("QWEN3_TESTS", False),
        ]
