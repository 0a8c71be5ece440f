# SPDX-License-Identifier: Apache-2.0
# The collector's benchmarks (bench/gc/): each C program over malloc and over bdwgc, two also in Go.
# What needs a compiler or a library that is not there is left out. And those of its parts.
# Included by bench.mk.

BENCH_GC_OUT := $(BUILD)/bench/gc
BENCH_GC_NAMES := $(basename $(notdir $(wildcard bench/gc/*.c)))
BENCH_GC_PROGRAMS := $(BENCH_GC_NAMES:%=$(BENCH_GC_OUT)/%)
ifneq ($(wildcard /usr/include/gc/gc.h /usr/include/gc.h),)
BENCH_GC_PROGRAMS += $(BENCH_GC_NAMES:%=$(BENCH_GC_OUT)/%-bdwgc)
endif
ifneq ($(shell command -v go 2>/dev/null),)
BENCH_GC_PROGRAMS += $(patsubst bench/gc/%.go,$(BENCH_GC_OUT)/%-go,$(wildcard bench/gc/*.go))
endif
BENCH_GC_HEADERS := bench/gc/gcbench.h bench/workloads/bench.h bench/workloads/histogram.h

.PHONY: bench-gc bench-gc-quick bench-gc-build
BENCH_GC_RECALL := $(addprefix $(BUILD)/tests/preload/,gc_recall gc_recall_cxx gc_recall_xml)
bench-gc-build: bench-build $(BENCH_GC_PROGRAMS) $(BENCH_GC_RECALL)

bench-gc: bench-gc-build $(BENCH_SUBJECT)
	python3 bench/gc/run.py --build $(BUILD) $(BENCH_ARGS)

bench-gc-quick: bench-gc-build $(BENCH_SUBJECT)
	python3 bench/gc/run.py --build $(BUILD) --quick $(BENCH_ARGS)

$(BENCH_GC_OUT)/%: bench/gc/%.c $(BENCH_GC_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(BENCH_CFLAGS) -Iinclude $< -o $@

$(BENCH_GC_OUT)/%-bdwgc: bench/gc/%.c $(BENCH_GC_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(BENCH_CFLAGS) -DUSE_BDWGC $< -o $@ -lgc

$(BENCH_GC_OUT)/%-go: bench/gc/%.go
	@mkdir -p $(@D)
	GO111MODULE=off GOCACHE=$(abspath $(BUILD))/bench/gocache go build -o $@ $<

# A leak to look at: bench/demo/. Without libxml2-dev only the load is built, and run.py says so.
BENCH_DEMO_OUT := $(BUILD)/bench/demo
BENCH_DEMO_PROGRAMS := $(BENCH_DEMO_OUT)/load \
                       $(if $(wildcard /usr/include/libxml2/libxml/parser.h),$(BENCH_DEMO_OUT)/leaky_server)

.PHONY: bench-gc-demo
bench-gc-demo: $(BENCH_DEMO_PROGRAMS) $(BENCH_SUBJECT)
	@python3 bench/demo/run.py --build $(BUILD)

$(BENCH_DEMO_OUT)/leaky_server: bench/demo/leaky_server.c
	@mkdir -p $(@D)
	$(CC) $(BENCH_CFLAGS) -I/usr/include/libxml2 $< -o $@ -lxml2

$(BENCH_DEMO_OUT)/load: bench/demo/load.c bench/workloads/bench.h
	@mkdir -p $(@D)
	$(CC) $(BENCH_CFLAGS) $< -o $@

.PHONY: bench-scan
bench-scan: $(BENCH_GC_OUT)/scan_bench
	$<

$(BENCH_GC_OUT)/scan_bench: bench/gc/scan_bench.cc $(BUILD)/libgc.a
	@mkdir -p $(@D)
	$(CXX) $(BENCH_CXXFLAGS) -Ilib $^ -o $@
