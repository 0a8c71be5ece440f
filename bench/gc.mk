# SPDX-License-Identifier: Apache-2.0
# Benchmarks of the collector's parts. Included by bench.mk.

.PHONY: bench-scan
bench-scan: $(BUILD)/bench/gc/scan_bench
	$<

$(BUILD)/bench/gc/scan_bench: bench/gc/scan_bench.cc $(BUILD)/libgc.a
	@mkdir -p $(@D)
	$(CXX) $(BENCH_CXXFLAGS) -Ilib $^ -o $@
