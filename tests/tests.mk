# SPDX-License-Identifier: Apache-2.0
# Builds the tests: programs to be run under the preload, the model test and the unit tests.
# Included by the top Makefile, which gives BUILD, CC, CXX, MODE, OUT and the flags of each mode and
# owns `check` and `test`. Programs are the same in each mode; unit tests follow the archives'.

BUILD ?= build
CC ?= gcc
CXX ?= g++
MODE ?= release
OUT ?= $(BUILD)

TESTS_OUT := $(BUILD)/tests
# -fno-builtin keeps the compiler from folding a malloc with its free: the calls are the test.
TESTS_FLAGS := -O2 -ftree-vectorize -g -pthread -fno-builtin -fno-omit-frame-pointer \
               -Wall -Wextra -Werror -Wno-deprecated-declarations -D_GNU_SOURCE \
               -Itests/support -Iinclude
TESTS_CFLAGS := -std=gnu11 $(TESTS_FLAGS)
TESTS_CXXFLAGS := -std=c++20 $(TESTS_FLAGS)
TESTS_LIBS := -ldl -lrt -lm

# gcc's unique symbols would keep a plugin loaded for ever; clang makes none and lacks the option.
TESTS_PLUGIN_FLAGS := $(shell $(CXX) -fno-gnu-unique -E -x c++ /dev/null >/dev/null 2>&1 && \
                        echo -fno-gnu-unique)

# A program may ask for more flags by a head comment: `// build: FLAGS`.
tests_own_flags = $$(sed -n 's,^// build: ,,p' $<)

# $(call tests_from,FOLDER,SUFFIX,ENDING): what is built from tests/FOLDER/*SUFFIX.
tests_from = $(patsubst tests/$(1)/%$(2),$(TESTS_OUT)/$(1)/%$(3),$(wildcard tests/$(1)/*$(2)))
TESTS_PROGRAMS := $(foreach s,.c .cc,$(call tests_from,preload,$(s)) $(call tests_from,model,$(s)))
TESTS_PLUGINS := $(foreach s,.c .cc,$(call tests_from,preload/plugins,$(s),.so))
TESTS_BROKEN := $(call tests_from,support,.c,.so)
TESTS_HEADERS := $(wildcard tests/support/*.h)

$(TESTS_OUT)/preload/%: tests/preload/%.c $(TESTS_HEADERS) tests/tests.mk
	@mkdir -p $(@D)
	$(CC) $(TESTS_CFLAGS) $< -o $@ $(TESTS_LIBS) $(tests_own_flags)

$(TESTS_OUT)/preload/%: tests/preload/%.cc $(TESTS_HEADERS) tests/tests.mk
	@mkdir -p $(@D)
	$(CXX) $(TESTS_CXXFLAGS) $< -o $@ $(TESTS_LIBS) $(tests_own_flags)

$(TESTS_OUT)/model/%: tests/model/%.cc $(TESTS_HEADERS) tests/tests.mk
	@mkdir -p $(@D)
	$(CXX) $(TESTS_CXXFLAGS) $< -o $@ $(TESTS_LIBS) $(tests_own_flags)

$(TESTS_OUT)/preload/plugins/%.so: tests/preload/plugins/%.c $(TESTS_HEADERS) tests/tests.mk
	@mkdir -p $(@D)
	$(CC) $(TESTS_CFLAGS) -fPIC -shared $< -o $@ $(TESTS_LIBS) $(tests_own_flags)

$(TESTS_OUT)/preload/plugins/%.so: tests/preload/plugins/%.cc $(TESTS_HEADERS) tests/tests.mk
	@mkdir -p $(@D)
	$(CXX) $(TESTS_CXXFLAGS) $(TESTS_PLUGIN_FLAGS) -fPIC -shared $< -o $@ $(TESTS_LIBS) \
	  $(tests_own_flags)

$(TESTS_OUT)/support/%.so: tests/support/%.c tests/tests.mk
	@mkdir -p $(@D)
	$(CC) $(TESTS_CFLAGS) -fPIC -shared $< -o $@ $(TESTS_LIBS) $(tests_own_flags)

# Unit tests: one Criterion binary for each layer that has tests, linked with the archives of that
# layer and of the layers below it only, so that an upward call fails to link here as well.
TESTS_LAYERS := base plat sync heap world gc sched posix diag boot interpose
TESTS_UNIT_OUT := $(OUT)/tests/unit
TESTS_UNIT_CXXFLAGS = -std=c++20 -g -pthread -Wall -Wextra -Werror -D_GNU_SOURCE -Ilib -Iinclude \
                      -Itests/support $(OPT_$(MODE))
tests_below = $(call tests_walk,$(1),$(TESTS_LAYERS))
tests_walk = $(if $(2),$(firstword $(2)) $(if $(filter $(1),$(firstword $(2))),,$(call \
  tests_walk,$(1),$(wordlist 2,99,$(2)))))
tests_reverse = $(if $(1),$(call tests_reverse,$(wordlist 2,99,$(1))) $(firstword $(1)))
# Layers without a source file have no archive.
tests_archives = $(foreach l,$(call tests_reverse,$(call tests_below,$(1))),$(if \
  $(wildcard lib/$(l)/*.cc lib/$(l)/*/*.cc lib/$(l)/*/*.S),$(OUT)/lib$(l).a))

TESTS_UNIT :=
define tests_unit_rule
TESTS_UNIT += $(TESTS_UNIT_OUT)/$(1)
$(TESTS_UNIT_OUT)/obj/$(1)/%.o: tests/unit/$(1)/%.cc $(TESTS_HEADERS) tests/tests.mk
	@mkdir -p $$(@D)
	$$(CXX) $$(TESTS_UNIT_CXXFLAGS) -MMD -MP -c $$< -o $$@
$(TESTS_UNIT_OUT)/$(1): $(patsubst tests/unit/$(1)/%.cc,$(TESTS_UNIT_OUT)/obj/$(1)/%.o,$(wildcard \
  tests/unit/$(1)/*_test.cc)) $(call tests_archives,$(1))
	$$(CXX) $$(OPT_$$(MODE)) -pthread $$^ -o $$@ -lcriterion -ldl -lrt
endef
$(foreach l,$(TESTS_LAYERS),$(if $(wildcard tests/unit/$(l)/*_test.cc),\
  $(eval $(call tests_unit_rule,$(l)))))

# The scheduler's own sources once more, with a hook at each atomic access: the simulation.
TESTS_SIM := $(TESTS_UNIT_OUT)/sched_simulation
TESTS_SIM_OUT := $(OUT)/tests/sim
TESTS_SIM_LIB := sync/mutex $(addprefix sched/,schedule idle guest runq park sema handoff timer sysmon)
TESTS_SIM_CXXFLAGS = -std=c++20 -g -O1 -Wall -Wextra -Werror -D_GNU_SOURCE -Ilib -Iinclude \
                     -DUNDERGO_SIMULATION -DUNDERGO_DEBUG \
                     -fno-pie -fno-threadsafe-statics -include tests/sim/hooks.h
# It has its own flags: once is enough.
TESTS_UNIT += $(if $(filter release,$(MODE)),$(TESTS_SIM))
$(TESTS_SIM_OUT)/lib/%.o: lib/%.cc tests/sim/hooks.h tests/tests.mk
	@mkdir -p $(@D)
	$(CXX) $(TESTS_SIM_CXXFLAGS) -MMD -MP -c $< -o $@
$(TESTS_SIM_OUT)/%.o: tests/sim/%.cc $(wildcard tests/sim/*.h) tests/tests.mk
	@mkdir -p $(@D)
	$(CXX) $(TESTS_SIM_CXXFLAGS) -MMD -MP -c $< -o $@
$(TESTS_SIM): $(patsubst tests/sim/%.cc,$(TESTS_SIM_OUT)/%.o,$(wildcard tests/sim/*.cc)) \
  $(TESTS_SIM_LIB:%=$(TESTS_SIM_OUT)/lib/%.o) $(OUT)/libplat.a $(OUT)/libbase.a
	@mkdir -p $(@D)
	$(CXX) -no-pie -pthread $^ -o $@ -lcriterion -ldl

.PHONY: tests-build tests-programs tests-unit tests-quick tests-all tests-self tests-native
tests-unit: $(TESTS_UNIT)
tests-programs: $(TESTS_PROGRAMS) $(TESTS_PLUGINS) $(TESTS_BROKEN)
tests-build: tests-programs tests-unit
	@$(MAKE) --no-print-directory MODE=debug tests-unit

tests-quick: tests-build
	BUILD=$(BUILD) tests/run.sh --quick

tests-all: tests-build
	BUILD=$(BUILD) tests/run.sh --all

# The same programs over the C library's own malloc: shows that the tests themselves are right.
tests-native: tests-programs
	BUILD=$(BUILD) tests/run.sh --all --native

# Runs the tests over allocators that are broken on purpose: each fault must be noticed.
tests-self: tests-programs
	BUILD=$(BUILD) tests/selftest.sh
