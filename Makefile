# SPDX-License-Identifier: Apache-2.0
# undergo: see README.md. One archive per layer of lib/, so that an upward call fails to link.

CC       ?= gcc
CXX      ?= g++
ifeq ($(origin CC),default)
CC       := gcc
endif
ifeq ($(origin CXX),default)
CXX      := g++
endif
PREFIX   ?= /usr/local
BUILD    ?= build
VERSION  := 0.1.0
# release, debug, asan or ubsan; the debug library lies in build/debug, and so on.
MODE     ?= release
OUT      := $(BUILD)$(if $(filter-out release,$(MODE)),/$(MODE))
OBJ      := $(OUT)/obj

WARN     := -Wall -Wextra -Werror
RUNTIME  := -std=c++20 $(WARN) -Ilib -Iinclude -fPIC -fno-exceptions -fno-rtti \
            -fvisibility=hidden -ftls-model=initial-exec -fno-threadsafe-statics \
            -fno-semantic-interposition -fno-builtin-malloc -fno-builtin-free \
            -fno-builtin-calloc -fno-builtin-realloc -fno-plt -mpopcnt -g \
            -DUNDERGO_VERSION='"$(VERSION)"'
OPT_release := -O2 -fno-stack-protector -D_FORTIFY_SOURCE=0
OPT_debug   := -O1 -DUNDERGO_DEBUG -fno-omit-frame-pointer -foptimize-sibling-calls
OPT_asan    := -O1 -DUNDERGO_DEBUG -fno-omit-frame-pointer -fsanitize=address
OPT_ubsan   := -O1 -DUNDERGO_DEBUG -fno-omit-frame-pointer -fsanitize=undefined -fno-sanitize-recover
CXXFLAGS_ALL = $(RUNTIME) $(OPT_$(MODE)) $(CXXFLAGS)

LAYERS   := base plat sync heap world gc sched posix diag boot interpose
sources   = $(wildcard lib/$(1)/*.cc lib/$(1)/linux/*.cc lib/$(1)/x86_64/*.S)
objects   = $(patsubst lib/%,$(OBJ)/%.o,$(basename $(call sources,$(1))))
ARCHIVES := $(LAYERS:%=$(OUT)/lib%.a)

.DEFAULT_GOAL := all
.PHONY: all lib debug deps demo test check compat compat-gc posix asan ubsan install uninstall clean
all: lib $(BUILD)/undergo
lib: $(OUT)/libundergo.so

# Prints the command only with V=1.
Q        := $(if $(V),,@)
say       = @echo '  $(1)'

debug:
	@$(MAKE) --no-print-directory MODE=debug lib

$(OBJ)/%.o: lib/%.cc
	@mkdir -p $(@D)
	$(call say,$(CXX) $<)
	$(Q)$(CXX) $(CXXFLAGS_ALL) -MMD -MP -c $< -o $@

$(OBJ)/%.o: lib/%.S
	@mkdir -p $(@D)
	$(call say,$(CC) $<)
	$(Q)$(CC) -Ilib -MMD -MP -c $< -o $@

define archive_rule
$(OUT)/lib$(1).a: $$(call objects,$(1))
	@rm -f $$@
	$$(Q)ar rcs $$@ $$^
endef
$(foreach l,$(LAYERS),$(eval $(call archive_rule,$(l))))

# Each layer is linked with the archives below it alone: an upward call fails here.
below     = $(if $(filter $(1),$(firstword $(2))),$(3),$(call below,$(1),$(wordlist 2,99,$(2)),$(firstword $(2)) $(3)))
define layer_rule
$(OUT)/.layer-$(1): $(OUT)/lib$(1).a $(foreach l,$(call below,$(1),$(LAYERS),),$(OUT)/lib$(l).a)
	$$(Q)$(CC) -shared -o /dev/null -Wl,--whole-archive $(OUT)/lib$(1).a \
	  -Wl,--no-whole-archive $(foreach l,$(call below,$(1),$(LAYERS),),$(OUT)/lib$(l).a) -Wl,--no-undefined
	@touch $$@
endef
$(foreach l,$(LAYERS),$(eval $(call layer_rule,$(l))))

$(OUT)/libundergo.so: $(ARCHIVES) lib/interpose/exports.map $(LAYERS:%=$(OUT)/.layer-%)
	$(call say,link $@)
	$(Q)$(CC) -shared -o $@ -Wl,-soname,libundergo.so \
	  -Wl,--whole-archive $(OUT)/libinterpose.a $(OUT)/libboot.a $(OUT)/libplat.a \
	  -Wl,--no-whole-archive $(foreach l,diag posix sched gc world heap sync base,$(OUT)/lib$(l).a) \
	  -Wl,-z,now -Wl,-z,relro -Wl,-z,initfirst -Wl,-z,nodelete -Wl,-z,noexecstack \
	  -Wl,--version-script=lib/interpose/exports.map \
	  -Wl,--no-undefined $(LDFLAGS)

# The launcher understands the settings by the library's own parser.
$(BUILD)/undergo: $(call objects,launch) $(OBJ)/boot/options.o $(OBJ)/boot/procs.o $(OUT)/libbase.a
	$(call say,link $@)
	$(Q)$(CXX) -o $@ $^ -static-libstdc++ -static-libgcc $(LDFLAGS)

deps:
	@scripts/deps.sh

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/undergo \
	  $(DESTDIR)$(PREFIX)/include/undergo $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 755 $(BUILD)/undergo $(DESTDIR)$(PREFIX)/bin/undergo
	install -m 755 $(BUILD)/libundergo.so $(DESTDIR)$(PREFIX)/lib/undergo/libundergo.so
	install -m 644 include/undergo/undergo.h $(DESTDIR)$(PREFIX)/include/undergo/undergo.h
	install -m 644 man/undergo.1 $(DESTDIR)$(PREFIX)/share/man/man1/undergo.1

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/undergo $(DESTDIR)$(PREFIX)/lib/undergo/libundergo.so \
	  $(DESTDIR)$(PREFIX)/include/undergo/undergo.h $(DESTDIR)$(PREFIX)/share/man/man1/undergo.1
	-rmdir $(DESTDIR)$(PREFIX)/lib/undergo $(DESTDIR)$(PREFIX)/include/undergo

BENCH_SUBJECT := $(BUILD)/libundergo.so
include tests/tests.mk
include bench/bench.mk

# The two promises of README.md: each sets up, builds and runs.
demo: deps
	@$(MAKE) --no-print-directory all bench-demo bench-gc-demo

test: deps
	@$(MAKE) --no-print-directory all debug
	@$(MAKE) --no-print-directory tests-all

check: all debug tests-quick

# The whole corpus of real programs, where it lies beside the checkout.
COMPAT ?= ../shared/compat
compat: all
	@test -x $(COMPAT)/run || { echo 'undergo: no corpus at $(COMPAT); COMPAT=DIR names it' >&2; exit 2; }
	$(COMPAT)/run --install --so $(abspath $(BUILD))/libundergo.so $(COMPAT_ARGS)

# The same with many collections, with what was found dead overwritten (any touch is a loss), and
# with each other way of noticing writes. hidden-pointers fails under poison in the part that packs
# pointers at odd addresses, which count for none (README.md, The collector).
compat-gc: all
	@test -x $(COMPAT)/run || { echo 'undergo: no corpus at $(COMPAT); COMPAT=DIR names it' >&2; exit 2; }
	failed=0; for set in gc=on gc=poison tracking=snapshot tracking=stop; do \
	  $(COMPAT)/run --install --so $(abspath $(BUILD))/libundergo.so --env GOGC=20 \
	    --env UNDERGO=$$set,sched=off $(COMPAT_ARGS) || failed=1; \
	done; exit $$failed

# The Open POSIX Test Suite against its native verdicts, about nine minutes; scripts/posix.sh.
posix: lib
	@scripts/posix.sh $(BUILD)/libundergo.so $(BUILD)/posix $(POSIX_ARGS)

asan ubsan:
	@$(MAKE) --no-print-directory MODE=$@ tests-unit
	@for t in $(BUILD)/$@/tests/unit/*; do if [ -f $$t ]; then echo "== $$t"; $$t || exit 1; fi; done

clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
