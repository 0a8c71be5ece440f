# SPDX-License-Identifier: Apache-2.0
# The scheduler's benchmarks (bench/sched/): each C program is run natively and under the library,
# those in Go beside them. Included by bench.mk.

BENCH_SCHED_OUT := $(BUILD)/bench/sched
BENCH_SCHED_PROGRAMS := $(patsubst bench/sched/%.c,$(BENCH_SCHED_OUT)/%,$(wildcard bench/sched/*.c))
ifneq ($(shell command -v go 2>/dev/null),)
BENCH_SCHED_PROGRAMS += $(patsubst bench/sched/%.go,$(BENCH_SCHED_OUT)/%-go,$(wildcard \
  bench/sched/*.go))
endif
BENCH_SCHED_HEADERS := bench/sched/schedbench.h bench/workloads/bench.h bench/workloads/histogram.h

.PHONY: bench-sched bench-sched-quick bench-sched-build
bench-sched-build: bench-build $(BENCH_SCHED_PROGRAMS)

bench-sched: bench-sched-build $(BENCH_SUBJECT)
	python3 bench/sched/run.py --build $(BUILD) $(BENCH_ARGS)

bench-sched-quick: bench-sched-build $(BENCH_SUBJECT)
	python3 bench/sched/run.py --build $(BUILD) --quick $(BENCH_ARGS)

# A program may ask for more flags by a head comment: `// build: FLAGS`.
$(BENCH_SCHED_OUT)/%: bench/sched/%.c $(BENCH_SCHED_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(BENCH_CFLAGS) -D_GNU_SOURCE -Iinclude $$(sed -n 's,^// build: ,,p' $<) $< -o $@

$(BENCH_SCHED_OUT)/%-go: bench/sched/%.go
	@mkdir -p $(@D)
	GO111MODULE=off GOCACHE=$(abspath $(BUILD))/bench/gocache go build -o $@ $<
