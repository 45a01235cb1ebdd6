# Thin front to CMake.
#
#   make            build the library and the programs into build/bin, build/lib
#   make demo       install what is missing, build, compare all strategies and algorithms on 2 ranks (about 2 minutes),
#                   and talk to the small model that is included
#   make check      install what is missing, build, run all tests
#   make install    build and install under PREFIX (DESTDIR is put in front of it);  make uninstall  removes that again
#   make package    install what is missing, build a Debian package with cpack into the build directory
#   make deps       install what is missing (Debian packages: scripts/packages.txt)
#   make fuzz       install what is missing, build the fuzz targets, run each for TIME seconds
#   make lint       formatting, static analysis, layer rules;  make format  reformats
#   make clean      removes all build directories
#
# Switches; each combination has its own build directory (build, build-mpich, build-none, build-clang, ...):
#   MPI=openmpi|mpich|system|none   system: whatever MPI CMake finds first, none: one rank, no MPI   (openmpi)
#   CC=gcc|clang                                                                                      (gcc)
#   SANITIZE=address,undefined      any list that -fsanitize= takes                                   (off)
#   WERROR=1                        warnings are errors                                               (off)
#   PREFIX=DIR                      of make install                                                   (/usr/local)
#   TEST_RANKS="1 2 3"              numbers of ranks that the tests run on                            (1 2 3 4 5 7 8)
#   CTEST="-R unit"                 more options for ctest
#   RANKS=2 MODEL=synthetic:0.6B    of the demo
#   TIME=60                         seconds for each fuzz target                                      (60)
#   JOBS=N                          parallel build and test jobs                                      (all cores)
MPI ?= openmpi
ifeq ($(origin CC),default)
CC := gcc
endif
SANITIZE ?=
WERROR ?=
PREFIX ?= /usr/local
TEST_RANKS ?=
CTEST ?=
RANKS ?= 2
MODEL ?= synthetic:0.6B
# Per rank: the cores divided among the ranks, at least one.
THREADS ?= $(shell nproc) < $(RANKS) ? 1 : $(shell nproc) / $(RANKS)
JOBS ?= $(shell nproc)
TIME ?= 60

MPIS := openmpi mpich system none
ifeq ($(filter $(MPI),$(MPIS)),)
$(error MPI=$(MPI): expected one of $(MPIS))
endif

comma := ,
variant := $(filter-out openmpi gcc,$(MPI) $(notdir $(CC))) $(subst $(comma), ,$(SANITIZE))
BUILD := $(subst $() ,-,$(strip build $(variant)))

cmake_mpi_openmpi := -DMPI_C_COMPILER=mpicc.openmpi -DMPIEXEC_EXECUTABLE=/usr/bin/mpiexec.openmpi
cmake_mpi_mpich := -DMPI_C_COMPILER=mpicc.mpich -DMPIEXEC_EXECUTABLE=/usr/bin/mpiexec.mpich
cmake_mpi_none := -DQWEN3_MPI=OFF
CMAKE_OPTIONS = -DCMAKE_C_COMPILER=$(CC) -DQWEN3_SANITIZE=$(SANITIZE) -DQWEN3_WERROR=$(if $(WERROR),ON,OFF) \
                $(cmake_mpi_$(MPI)) \
                $(if $(TEST_RANKS),"-DQWEN3_TEST_RANKS=$(subst $() ,;,$(strip $(TEST_RANKS)))") $(CMAKE_EXTRA)
PURPOSES := build test $(filter openmpi mpich,$(MPI)) $(filter clang,$(notdir $(CC)))

# Open MPI and MPICH keep memory until the process ends: leaks are looked for in the build without MPI.
ifneq ($(SANITIZE),)
export ASAN_OPTIONS ?= detect_leaks=$(if $(filter none,$(MPI)),1,0)
export LSAN_OPTIONS ?= suppressions=$(CURDIR)/tests/leaks.supp:print_suppressions=0
endif

.PHONY: build configure demo check install uninstall package deps deps-check lint format clean
build: configure
	cmake --build $(BUILD) --parallel $(JOBS)

configure: deps-check
	cmake -S . -B $(BUILD) $(CMAKE_OPTIONS)

deps:
	scripts/install_deps.sh $(PURPOSES)

deps-check:
	@scripts/install_deps.sh --check $(PURPOSES)

install: build
	cmake --install $(BUILD) --prefix $(PREFIX)

# What the last make install of this build directory installed.
uninstall:
	sed 's|^|$(DESTDIR)|' $(BUILD)/install_manifest.txt | tr '\n' '\0' | xargs -0 rm -f

package:
	scripts/install_deps.sh $(PURPOSES) package
	@$(MAKE) --no-print-directory build
	cd $(BUILD) && cpack -G DEB

# deps first: a recursive make, so that -j cannot reorder them.
check: deps
	@$(MAKE) --no-print-directory build
	ctest --test-dir $(BUILD) --parallel $$((2 * $(JOBS))) --output-on-failure --no-tests=error $(CTEST)

# Starts a program on the ranks of the demo.
LAUNCH = OMP_NUM_THREADS=$$(($(THREADS))) tests/launch.sh $(if $(filter none,$(MPI)),none 1,$$(sed -n 's/^MPIEXEC_EXECUTABLE:[^=]*=//p' $(BUILD)/CMakeCache.txt) $(RANKS))
# Puts what was said in front of each answer; fails where answers are missing.
DIALOGUE = awk 'NR == FNR { said[NR] = $$0; n = NR; next } { print "> " said[FNR]; print; fflush() } END { exit FNR != n }'

demo: deps
	@$(MAKE) --no-print-directory build
	$(LAUNCH) $(BUILD)/bin/benchmark_qwen3 --model $(MODEL) --dtype bf16 --pairs --verify --prompt-len 128 --gen-len 16 --iters 1 --warmup 1
	@printf '\nmodels/demo on %s ranks (qwen3 chat --model models/demo):\n\n' $(if $(filter none,$(MPI)),1,$(RANKS))
	@$(LAUNCH) $(BUILD)/bin/qwen3 chat --model models/demo --hide-thinking < examples/conversation.txt | \
	    $(DIALOGUE) examples/conversation.txt -

lint:
	scripts/install_deps.sh $(PURPOSES) lint
	@$(MAKE) --no-print-directory configure CC=clang
	scripts/lint.sh $$($(MAKE) --no-print-directory -s build-directory CC=clang)

.PHONY: fuzz
fuzz:
	scripts/install_deps.sh build test clang
	cmake -S . -B build-fuzz -DCMAKE_C_COMPILER=clang -DQWEN3_MPI=OFF -DQWEN3_FUZZ=ON
	cmake --build build-fuzz --parallel $(JOBS) --target fuzz
	tests/fuzz/run.sh build-fuzz $(TIME) $$((2 * $(JOBS)))

.PHONY: build-directory
build-directory:
	@echo $(BUILD)

format:
	git ls-files '*.c' '*.h' | xargs clang-format -i

clean:
	rm -rf build build-*
