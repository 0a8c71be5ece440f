# SPDX-License-Identifier: Apache-2.0
# The benchmark suite: `make bench` builds the workloads and runs everything (about a quarter of an
# hour), `make bench-quick` a reduced round for a first look, `make bench-demo` two real programs.
# Works alone too: make -f bench/bench.mk

BUILD ?= build
CC ?= cc
CXX ?= c++
BENCH_ARGS ?=

BENCH_FLAGS := -O2 -g -Wall -Wextra -Werror -pthread
# Without these the compiler removes or merges the very calls that are to be measured.
BENCH_CFLAGS := -std=gnu11 $(BENCH_FLAGS) -fno-builtin-malloc -fno-builtin-free \
                -fno-builtin-calloc -fno-builtin-realloc -fno-builtin-aligned_alloc
BENCH_CXXFLAGS := -std=c++20 $(BENCH_FLAGS)

BENCH_PROGRAMS := $(patsubst bench/workloads/%.c,$(BUILD)/bench/%,$(wildcard bench/workloads/*.c)) \
                  $(patsubst bench/workloads/%.cc,$(BUILD)/bench/%,$(wildcard bench/workloads/*.cc)) \
                  $(patsubst bench/support/%.c,$(BUILD)/bench/%,$(wildcard bench/support/*.c))

.PHONY: bench bench-build bench-quick bench-demo fastpath-check fastpath-update
# Named first so that it is the default when this file is used alone.
bench-build: $(BENCH_PROGRAMS)

bench: bench-build $(BENCH_SUBJECT)
	python3 bench/run.py --build $(BUILD) $(BENCH_ARGS)

bench-quick: bench-build $(BENCH_SUBJECT)
	python3 bench/run.py --build $(BUILD) --quick $(BENCH_ARGS)

bench-demo: bench-build $(BENCH_SUBJECT)
	python3 bench/run.py --build $(BUILD) --demo $(BENCH_ARGS)

# The hot paths of malloc and free, instruction by instruction, against tests/golden/.
fastpath-check fastpath-update: fastpath-%: $(BUILD)/bench/steptrace $(BENCH_SUBJECT)
	scripts/fastpath_golden.py --build $(BUILD) --$* $(BUILD)/libundergo.so

$(BUILD)/bench/%: bench/workloads/%.c bench/workloads/bench.h
	@mkdir -p $(@D)
	$(CC) $(BENCH_CFLAGS) $< -o $@

$(BUILD)/bench/%: bench/workloads/%.cc bench/workloads/bench.h
	@mkdir -p $(@D)
	$(CXX) $(BENCH_CXXFLAGS) $< -o $@

# The launchers are static: what they hold in memory is a floor of what they can measure.
$(BUILD)/bench/measure $(BUILD)/bench/startup: $(BUILD)/bench/%: bench/support/%.c
	@mkdir -p $(@D)
	$(CC) $(BENCH_CFLAGS) -static $< -o $@

$(BUILD)/bench/%: bench/support/%.c bench/workloads/bench.h
	@mkdir -p $(@D)
	$(CC) $(BENCH_CFLAGS) $< -o $@

include bench/gc.mk
include bench/sched.mk
