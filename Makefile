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
OPT_debug   := -O1 -DUNDERGO_DEBUG -fno-omit-frame-pointer
OPT_asan    := -O1 -DUNDERGO_DEBUG -fno-omit-frame-pointer -fsanitize=address
OPT_ubsan   := -O1 -DUNDERGO_DEBUG -fno-omit-frame-pointer -fsanitize=undefined -fno-sanitize-recover
CXXFLAGS_ALL = $(RUNTIME) $(OPT_$(MODE)) $(CXXFLAGS)

LAYERS   := base plat sync heap posix boot interpose
sources   = $(wildcard lib/$(1)/*.cc lib/$(1)/linux/*.cc lib/$(1)/x86_64/*.S)
objects   = $(patsubst lib/%,$(OBJ)/%.o,$(basename $(call sources,$(1))))
ARCHIVES := $(LAYERS:%=$(OUT)/lib%.a)

.PHONY: all lib debug deps demo test check bench asan ubsan compat install uninstall clean format
all: lib $(BUILD)/undergo
lib: $(OUT)/libundergo.so

debug:
	@$(MAKE) --no-print-directory MODE=debug lib

$(OBJ)/%.o: lib/%.cc
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS_ALL) -MMD -MP -c $< -o $@

$(OBJ)/%.o: lib/%.S
	@mkdir -p $(@D)
	$(CC) -c $< -o $@

define archive_rule
$(OUT)/lib$(1).a: $$(call objects,$(1))
	@rm -f $$@
	ar rcs $$@ $$^
endef
$(foreach l,$(LAYERS),$(eval $(call archive_rule,$(l))))

# --no-undefined together with the order of the archives is the layer check: each layer is linked
# against the ones below it alone.
$(OUT)/libundergo.so: $(ARCHIVES)
	$(CC) -shared -o $@ -Wl,-soname,libundergo.so \
	  -Wl,--whole-archive $(OUT)/libinterpose.a $(OUT)/libboot.a $(OUT)/libplat.a \
	  -Wl,--no-whole-archive $(foreach l,posix heap sync base,$(OUT)/lib$(l).a) \
	  -Wl,-z,now -Wl,-z,relro -Wl,-z,initfirst -Wl,-z,nodelete -Wl,-z,noexecstack \
	  -Wl,--no-undefined $(LDFLAGS)

clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
