#!/usr/bin/env python3
"""What is installed, used as a stranger does: test_install.py PART, one of the functions below. `files` installs into
build/tests/install/prefix, which the other parts use."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from e2e import ENVIRONMENT, LAUNCH, MPIEXEC, RANKS, ROOT, Checks, scratch

BUILD = pathlib.Path(os.environ["QWEN3_BUILD"])
CC, LIBDIR = os.environ["QWEN3_CC"], os.environ["QWEN3_LIBDIR"]
PREFIX = BUILD / "tests" / "install" / "prefix"
PROGRAMS = ["qwen3", "benchmark_qwen3", "test_parallel_strategies"]
VERSION = re.search(r'#define QWEN3_VERSION "(.*)"', (ROOT / "include" / "qwen3.h").read_text()).group(1)
DOC = pathlib.Path("share/doc/qwen3-mpi")
EXPECTED = ROOT / "tests" / "data" / "examples"
HERE = pathlib.Path(__file__).parent
# Nothing that the surroundings say about where things are.
CLEAN = {key: value for key, value in ENVIRONMENT.items() if key not in ("LD_LIBRARY_PATH", "DESTDIR", "MAKEFLAGS")}


def command(checks, what, *arguments, env=None, cwd=None):
    """Runs a command that must succeed; its output."""
    done = subprocess.run([str(part) for part in arguments], env={**CLEAN, **(env or {})}, cwd=cwd, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    checks.true(what, done.returncode == 0, f"$ {' '.join(map(str, arguments))}\n{done.stdout}")
    return done.stdout


def files_of(prefix):
    return {str(path.relative_to(prefix)) for path in prefix.rglob("*") if not path.is_dir() or path.is_symlink()}


def has_mpi():
    return bool(MPIEXEC)


def subcommands(bin_dir):
    usage = subprocess.run([bin_dir / "qwen3", "--help"], env=CLEAN, text=True, capture_output=True).stdout
    return re.findall(r"(?m)^  ([a-z]+) ", usage)


def options_of(bin_dir, words):
    """[(short or "", long)] of --help."""
    text = subprocess.run([bin_dir / words[0], *words[1:], "--help"], env=CLEAN, text=True, capture_output=True).stdout
    return re.findall(r"(?m)^  (?:(-\w), )?(--[\w-]+)", text)


def run_examples(checks, folder, how):
    """Every program of the folder on 1 and 2 ranks, against what it must print."""
    arguments = {"7_text": [PREFIX / "share/qwen3-mpi/models/demo",
                            "The red box holds 4711. What does the red box hold?"]}
    names = sorted(path.stem for path in EXPECTED.glob("*.txt") if has_mpi() or not path.stem.endswith("_mpi"))
    checks.true(f"{how}: all examples are built", all((folder / name).exists() for name in names), os.listdir(folder))
    for name in names:
        for ranks in (n for n in RANKS if n <= 2):
            launch = [LAUNCH, MPIEXEC, ranks] if ranks > 1 else []
            output = command(checks, f"{how}: {name} on {ranks}", *launch, folder / name, *arguments.get(name, []))
            for line in (EXPECTED / f"{name}.txt").read_text().splitlines():
                checks.true(f"{how}: {name} on {ranks} prints {line}", line in output, output)


def files(checks):
    """Everything arrives, under a prefix chosen now and under DESTDIR, and the list of it removes all."""
    shutil.rmtree(PREFIX, ignore_errors=True)
    command(checks, "cmake --install", "cmake", "--install", BUILD, "--prefix", PREFIX)
    installed = files_of(PREFIX)
    soname = ".".join(VERSION.split(".")[:2]) if VERSION.startswith("0.") else VERSION.split(".")[0]
    expected = [f"bin/{name}" for name in PROGRAMS] + [
        f"{LIBDIR}/{name}" for name in (
            "libqwen3.a", "libqwen3.so", f"libqwen3.so.{soname}", f"libqwen3.so.{VERSION}", "pkgconfig/qwen3.pc",
            "cmake/qwen3/qwen3-config.cmake")] + [
        "include/qwen3.h", "include/qwen3_grammar.h", "include/qwen3_scheduler.h", f"{DOC}/LICENSE",
        f"{DOC}/README.md", f"{DOC}/docs/INSTALL.md",
        f"{DOC}/examples/Makefile",
        f"{DOC}/examples/7_text.c", "share/qwen3-mpi/models/demo/model.safetensors",
        f"share/modulefiles/qwen3-mpi/{VERSION}", "share/zsh/site-functions/_qwen3"]
    expected += [f"share/bash-completion/completions/{name}" for name in PROGRAMS]
    expected += ["include/qwen3_mpi.h", f"{LIBDIR}/pkgconfig/qwen3-mpi.pc"] if has_mpi() else []
    for name in expected:
        checks.true(f"{name} is installed", name in installed, sorted(installed))
    checks.true("nothing of MPI without MPI", has_mpi() or not any("mpi.h" in name for name in installed))
    module = (PREFIX / "share/modulefiles/qwen3-mpi" / VERSION).read_text()
    checks.true("the environment module names the prefix", f"set prefix {{{PREFIX}}}" in module, module)

    with scratch() as stage:
        command(checks, "DESTDIR", "cmake", "--install", BUILD, "--prefix", "/opt/qwen3", env={"DESTDIR": str(stage)})
        checks.true("DESTDIR holds the same", files_of(stage / "opt/qwen3") == installed, "")
        module = (stage / "opt/qwen3/share/modulefiles/qwen3-mpi" / VERSION).read_text()
        checks.true("DESTDIR is not part of the prefix", "set prefix {/opt/qwen3}" in module, module)
        for line in (BUILD / "install_manifest.txt").read_text().split("\n"):
            (stage / line.lstrip("/")).unlink()
        checks.true("what the list names is everything", not files_of(stage), sorted(files_of(stage)))

        moved = stage / "moved"
        shutil.copytree(PREFIX, moved, symlinks=True)
        for program in PROGRAMS:
            output = command(checks, f"{program} after a move", moved / "bin" / program, "--version")
            checks.true(f"the version of {program}", output == f"{program} {VERSION}\n", output)
        libraries = command(checks, "ldd", "ldd", moved / "bin" / "qwen3")
        checks.true("the moved program takes the library beside it", f"{moved}/" in libraries.replace("/bin/..", ""),
                    libraries)
    exported = command(checks, "nm", "nm", "-D", "--defined-only", PREFIX / LIBDIR / "libqwen3.so")
    checks.true("symbols have versions", f"qwen3_version@@QWEN3_{soname}" in exported, exported)


def pkgconfig(checks):
    """The examples with their Makefile, and static use."""
    pc = {"PKG_CONFIG_PATH": str(PREFIX / LIBDIR / "pkgconfig")}
    version = command(checks, "pkg-config", "pkg-config", "--modversion", "qwen3", env=pc)
    checks.true("pkg-config knows the version", version.strip() == VERSION, version)
    with scratch() as folder:
        command(checks, "make with pkg-config", "make", f"OUTPUT={folder}", f"CC={CC}", "CFLAGS=-Wall -Wextra -Werror",
                env=pc, cwd=PREFIX / DOC / "examples")
        run_examples(checks, folder, "pkg-config")
        command(checks, "static use", "sh", "-c",
                f"{CC} -std=c17 {HERE}/consumer/consumer.c -o {folder}/static $(pkg-config --cflags qwen3) "
                "$(pkg-config --static --libs qwen3 | sed 's/-lqwen3/-l:libqwen3.a/')", env=pc)
        output = command(checks, "a program of static use", folder / "static")
        checks.true("it says its version", output == f"version {VERSION}\n", output)
        libraries = command(checks, "ldd", "ldd", folder / "static")
        checks.true("it does not need the shared library", "libqwen3" not in libraries, libraries)


def cmake(checks):
    """The examples as a CMake project, and the components."""
    mpi = [f"-DMPI_C_COMPILER={os.environ['QWEN3_MPI_CC']}"] if has_mpi() else []
    options = [f"-DCMAKE_PREFIX_PATH={PREFIX}", f"-DCMAKE_C_COMPILER={CC}", *mpi]
    with scratch() as folder:
        command(checks, "find_package", "cmake", "-S", PREFIX / DOC / "examples", "-B", folder / "build", *options)
        command(checks, "build", "cmake", "--build", folder / "build")
        run_examples(checks, folder / "build" / "examples", "find_package")

        other = ".".join(["0", str(int(VERSION.split(".")[1]) + 1)])
        for request, found in (("REQUIRED", True), ("REQUIRED COMPONENTS MPI", has_mpi()), (f"{other} REQUIRED", False),
                               ("REQUIRED COMPONENTS GPU", False)):
            (folder / "CMakeLists.txt").write_text(
                f"cmake_minimum_required(VERSION 3.18)\nproject(p C)\nfind_package(qwen3 {request})\n"
                f"add_executable(p {HERE}/consumer/consumer.c)\ntarget_link_libraries(p qwen3::static)\n")
            shutil.rmtree(folder / "b", ignore_errors=True)
            done = subprocess.run(["cmake", "-S", folder, "-B", folder / "b", *options], env=CLEAN, text=True,
                                  capture_output=True)
            checks.true(f"find_package(qwen3 {request}): {'found' if found else 'refused'}",
                        (done.returncode == 0) == found, done.stdout + done.stderr)
            if request == "REQUIRED":
                command(checks, "build with qwen3::static", "cmake", "--build", folder / "b")
                command(checks, "run with qwen3::static", folder / "b" / "p")


def pages(checks):
    """A man page for every program and command, and completion of every option in both shells."""
    bin_dir = PREFIX / "bin"
    commands = [[name] for name in PROGRAMS if name != "qwen3"] + [["qwen3", name] for name in subcommands(bin_dir)]
    checks.true("there are subcommands", len(commands) > 6, commands)
    checks.true("a man page of qwen3", (PREFIX / "share/man/man1/qwen3.1").exists())
    bash = PREFIX / "share/bash-completion/completions/qwen3"
    zsh = PREFIX / "share/zsh/site-functions/_qwen3"

    def by_bash(*words):
        script = (f"source {bash}; COMP_WORDS=({' '.join(words)} {{}}); COMP_CWORD={len(words)}; _qwen3; "
                  'printf "%s\\n" "${{COMPREPLY[@]}}"')
        return lambda word: command(checks, f"bash: {words} {word}", "bash", "-c",
                                    script.format(f"'{word}'")).split()

    def by_zsh(*words):
        return command(checks, f"zsh: {words}", "zsh", "-f", "-c",
                       '_arguments() { print -rl -- "$@" }; _describe() { print -rl -- $commands }; '
                       f"words=({' '.join(words)} ''); CURRENT={len(words) + 1}; source {zsh}")

    checks.true("bash completes commands", set(subcommands(bin_dir)) <= set(by_bash("qwen3")("")), by_bash("qwen3")(""))
    checks.true("bash completes values", by_bash("qwen3", "run", "--dtype")("q") == ["q8", "q4"])
    checks.true("bash completes values after =", by_bash("qwen3", "run", "--dtype", "=")("f") == ["f32"])
    with_zsh = shutil.which("zsh")
    if with_zsh:
        named = {line.split(":")[0] for line in by_zsh("qwen3").splitlines()}
        checks.true("zsh completes commands", set(subcommands(bin_dir)) <= named, named)
    for words in commands:
        name, options = "-".join(words), options_of(bin_dir, words)
        flat = {option for pair in options for option in pair if option}
        page = PREFIX / "share/man/man1" / f"{name}.1"
        checks.true(f"a man page of {name} with all options", len(options) > 2 and page.exists()
                    and all(long in page.read_text().replace("\\-", "-") for _, long in options), options)
        missing = flat - set(by_bash(*words)("-"))
        checks.true(f"bash completes all options of {name}", not missing, missing)
        if with_zsh:
            specs = by_zsh(*words)
            missing = {option for option in flat if not re.search(rf"(?m)^(\*|\([^)]*\))?{option}=?(\[|$)", specs)}
            checks.true(f"zsh completes all options of {name}", not missing, f"{missing}\n{specs}")
    if not with_zsh:
        print("zsh is not installed: its completion was not tried")


def compiler(checks):
    """One that is too old is refused with a sentence."""
    macro = "__clang_major__" if "clang" in subprocess.run([CC, "--version"], capture_output=True, text=True).stdout \
        else "__GNUC__"
    with scratch() as folder:
        old = folder / "cc"
        old.write_text(f'#!/bin/sh\nexec {CC} -U{macro} -D{macro}=9 -w "$@"\n')
        old.chmod(0o755)
        done = subprocess.run(["cmake", "-S", ROOT, "-B", folder / "build", f"-DCMAKE_C_COMPILER={old}"], env=CLEAN,
                              text=True, capture_output=True)
        said = " ".join(done.stderr.split())
        checks.true("a compiler of version 9 is refused", done.returncode != 0
                    and re.search(r"is version 9\S*: gcc from \d+ or clang from \d+ on is needed", said), said)


def tree(checks):
    """A build tree that was copied runs where it is then."""
    with scratch() as folder:
        for name in ("bin", "lib", "examples"):
            shutil.copytree(BUILD / name, folder / name, symlinks=True)
        for program in PROGRAMS:
            command(checks, f"{program} of a copied build tree", folder / "bin" / program, "--version")
        libraries = command(checks, "ldd", "ldd", folder / "examples" / "5_logits")
        checks.true("the copy takes the library beside it", f"{folder}/" in libraries, libraries)
        checks.true("and nothing of the build tree", str(BUILD) not in libraries, libraries)


def subdirectory(checks):
    """A project that builds the library as a part of itself gets the library alone, without our warnings."""
    mpi = [f"-DMPI_C_COMPILER={os.environ['QWEN3_MPI_CC']}"] if has_mpi() else ["-DQWEN3_MPI=OFF"]
    with scratch() as folder:
        command(checks, "configure", "cmake", "-S", HERE / "consumer", "-B", folder, f"-DQWEN3_SOURCE={ROOT}",
                "-DCMAKE_BUILD_TYPE=Debug", f"-DCMAKE_C_COMPILER={CC}", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON", *mpi)
        command(checks, "build", "cmake", "--build", folder, "--parallel", "2")
        for kind in ("shared", "static"):
            output = command(checks, f"the {kind} library", folder / f"consumer_{kind}")
            checks.true(f"the {kind} library says its version", output == f"version {VERSION}\n", output)
        compiled = json.loads((folder / "compile_commands.json").read_text())
        checks.true("no warning is an error", not any("-Werror" in entry["command"] for entry in compiled))
        checks.true("only the library is built", not any(
            part in entry["file"] for entry in compiled for part in ("/programs/", "/bench/", "/examples/", "/unit/")))
        tests = command(checks, "ctest", "ctest", "--test-dir", folder, "-N")
        checks.true("no tests of ours", "Total Tests: 0" in tests, tests)


def package(checks):
    """A Debian package of it, unpacked, runs."""
    if not shutil.which("dpkg-deb") or not shutil.which("dpkg-shlibdeps"):
        print("dpkg-deb or dpkg-shlibdeps is missing (Debian: dpkg-dev)")
        sys.exit(77)
    with scratch() as folder:
        command(checks, "cpack", "cpack", "-G", "DEB", "--config", BUILD / "CPackConfig.cmake", "-B", folder)
        packages = list(folder.glob("*.deb"))
        if not checks.true("one package", len(packages) == 1, os.listdir(folder)):
            return
        fields = command(checks, "dpkg-deb --field", "dpkg-deb", "--field", packages[0])
        checks.true("it names what it needs", "libjansson4" in fields and f"Version: {VERSION}" in fields, fields)
        command(checks, "dpkg-deb --extract", "dpkg-deb", "--extract", packages[0], folder / "root")
        output = command(checks, "the program of the package", folder / "root/usr/bin/qwen3", "run", "--model",
                         folder / "root/usr/share/qwen3-mpi/models/demo", "--temperature", "0",
                         "The red box holds 4711. What does the red box hold?")
        checks.true("it answers", "The red box holds 4711." in output, output)


# What the module evaluates to, without the module system: each command prints itself.
MODULE_COMMANDS = """
foreach name {module-whatis conflict prepend-path setenv} { proc $name args "puts \\"$name \\$args\\"" }
"""


def recipes(checks):
    """The recipes use commands that the page on installing has, and options and packages that exist."""
    page = (ROOT / "docs" / "INSTALL.md").read_text()
    cmake_lists = (ROOT / "CMakeLists.txt").read_text()
    for name in ("Dockerfile", "apptainer.def"):
        steps = re.findall(r"(?m)^(?:RUN)? *(make \w+.*)$", (ROOT / "packaging" / name).read_text())
        checks.true(f"{name} has steps of make", len(steps) >= 2, steps)
        for step in steps:
            checks.true(f"{name}: the page has `{step}`", " ".join(step.split()[:2]) in page)
    recipe = (ROOT / "packaging" / "spack" / "package.py").read_text()
    compile(recipe, "package.py", "exec")
    checks.true("Spack's recipe has this version", f'version("{VERSION}")' in recipe)
    options = re.findall(r'"(QWEN3_\w+)"', recipe)
    checks.true("Spack's recipe has options that exist",
                options and all(f"option({option} " in cmake_lists for option in options), options)
    found = set(re.findall(r"pkg_check_modules\(\w+ REQUIRED IMPORTED_TARGET (?:lib)?(\w+)\)", cmake_lists))
    depends = {name.removeprefix("lib") for name in re.findall(r'depends_on\("(\w+)', recipe)}
    checks.true("Spack's recipe has all libraries that are looked for", found and found <= depends, found - depends)

    if not shutil.which("tclsh"):
        print("tclsh is not installed: the environment module was not evaluated")
        return
    with scratch() as folder:
        module = (PREFIX / "share/modulefiles/qwen3-mpi" / VERSION).read_text()
        checks.true("the module begins as one", module.startswith("#%Module"))
        (folder / "module.tcl").write_text(MODULE_COMMANDS + module)
        output = command(checks, "the module is evaluated", "tclsh", folder / "module.tcl")
        for line in (f"prepend-path PATH {PREFIX}/bin",
                     f"prepend-path PKG_CONFIG_PATH {PREFIX}/{LIBDIR}/pkgconfig"):
            checks.true(f"the module does {line}", line in output, output)


if __name__ == "__main__":
    checked = Checks()
    parts = (files, pkgconfig, cmake, compiler, pages, tree, subdirectory, package, recipes)
    {part.__name__: part for part in parts}[sys.argv[1]](checked)
    sys.exit(checked.finish())
