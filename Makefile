# gobcc's build. `make help` lists the targets. Go alone builds the tools; what
# the other targets need is installed from Debian's packages when they run as
# root, and named when they don't.
#
# A tool is a directory tools/NAME with a main.go: none is listed here.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := all

# V=1 shows the commands.
Q   := $(if $(V),,@)
say  = @printf '  %-8s %s\n' '$(1)' '$(2)'

TOOLS   := $(sort $(patsubst tools/%/main.go,%,$(wildcard tools/*/main.go)))
DESTDIR :=
PREFIX  := /usr/local
SBIN     = $(DESTDIR)$(PREFIX)/sbin
SHARE    = $(DESTDIR)$(PREFIX)/share

# The commit and its day, so that two builds of one commit are the same bytes.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
DATE    := $(shell git log -1 --format=%cs 2>/dev/null)
CLI     := github.com/gobcc/gobcc/internal/common/cli
GOBUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false \
	-ldflags '-s -w -X $(CLI).version=$(VERSION) -X $(CLI).date=$(DATE)'
ARCHES  := amd64 arm64

# The compiler is pinned: another version makes other objects of the same C.
CLANG        := clang-19
STRIP        := llvm-strip-19
CLANG_FORMAT := clang-format-19
GOLANGCI     := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

GENERATED := '*_bpfel.go' '*_bpfel.o'
BPF_C      = $(shell find bpf internal tools -name '*.bpf.[ch]')

# The race detector needs a C compiler; RACE= does without.
RACE := -race

# Kernel tests are the tests TestKernel* in files *kernel_test.go. Those of the
# kernel runner itself are for its guests.
LIVE = $(sort $(patsubst %/,./%,$(dir $(shell find internal/common tools -name '*kernel_test.go'))))
ROOT = $(if $(filter 0,$(shell id -u)),,sudo )env GOBCC_KERNEL_TESTS=1

.PHONY: all
all: build ## the same as build

.PHONY: build
build: ## build every tool for this machine, into bin/
	$(call say,BUILD,$(TOOLS:%=bin/%))
	$(Q)$(GOBUILD) -o bin/ $(TOOLS:%=./tools/%)

bin/%:
	$(call say,BUILD,$@)
	$(Q)$(GOBUILD) -o $@ ./tools/$*

.PHONY: release
release: $(ARCHES:%=dist/%) ## build every tool for amd64 and arm64, into dist/ARCH/

.PHONY: $(ARCHES:%=dist/%)
$(ARCHES:%=dist/%): dist/%:
	$(call say,BUILD,$(TOOLS:%=dist/$*/%))
	$(Q)GOOS=linux GOARCH=$* $(GOBUILD) -o dist/$*/ $(TOOLS:%=./tools/%)

.PHONY: generate
generate: ## compile the BPF programs; their objects and Go files are committed
	$(Q).ci/need $(CLANG)=clang-19 $(STRIP)=llvm-19 /usr/include/bpf/bpf_helpers.h=libbpf-dev
	$(call say,GENERATE,./...)
	$(Q)BPF2GO_CC=$(CLANG) BPF2GO_STRIP=$(STRIP) go generate ./...

.PHONY: check-generated
check-generated: generate ## fail if the committed objects are not those of the C
	$(call say,CHECK,generated files)
	$(Q)git diff --exit-code --stat -- $(GENERATED) || \
		{ echo 'generated files are not current: commit what make generate made' >&2; exit 1; }
	$(Q)new=$$(git ls-files --others --exclude-standard -- $(GENERATED)); \
		[[ -z $$new ]] || { echo "generated files are not committed: $$new" >&2; exit 1; }

.PHONY: check-release
check-release: ## fail if release binaries are not static, or differ from build to build
	$(Q).ci/check-release '$(TOOLS)' '$(ARCHES)'

.PHONY: test
test: lint check-generated check-release test-unit test-live test-kernels ## everything that must pass before a commit

.PHONY: test-unit
test-unit: ## vet, and the tests that need no root (RACE= for no race detector)
	$(Q).ci/need mandoc=mandoc zsh=zsh fish=fish objcopy=binutils g++=g++ clang-19=clang-19 ld.lld-19=lld-19 \
		llvm-symbolizer-19=llvm-19 dwz=dwz gdb=gdb curl=curl java=default-jdk-headless chromium=chromium \
		/usr/share/perl5/Devel/NYTProf/flamegraph.pl=libdevel-nytprof-perl $(if $(RACE),gcc=gcc /usr/include/features.h=libc6-dev)
	$(call say,VET,./... for $(ARCHES))
	$(Q)for arch in $(ARCHES); do GOARCH=$$arch go vet ./...; done
	$(call say,TEST,./...)
	$(Q)go test $(RACE) -json -skip '^TestKernel' ./... | go run ./internal/cmd/tally

.PHONY: test-live
test-live: ## the kernel tests on the running kernel, as root (RUN=REGEXP picks some)
	$(Q).ci/need gcc=gcc /usr/include/features.h=libc6-dev clang-19=clang-19 java=default-jdk-headless
	$(call say,TEST,on kernel $(shell uname -r))
	$(Q)go test -exec '$(ROOT)' -json -count=1 -p=1 -run '$(or $(RUN),^TestKernel)' $(LIVE) | \
		go run ./internal/cmd/tally -live

.PHONY: test-kernels
test-kernels: ## the kernel tests on other kernels, under QEMU (KERNELS=6.12, RUN=REGEXP)
	$(call say,TEST,on kernels $(or $(KERNELS),of the matrix))
	$(Q).ci/need qemu-system-x86_64=qemu-system-x86 qemu-system-aarch64=qemu-system-arm
	$(Q)KERNELS='$(KERNELS)' go run ./internal/cmd/kernels $(if $(RUN),-run '$(RUN)')

.PHONY: bench
bench: ## what the tools cost, measured; see docs/
	$(Q)go run ./bench

.PHONY: lint
lint: ## linters for Go, BPF C and shell
	$(Q).ci/need $(CLANG_FORMAT)=clang-format-19 shellcheck=shellcheck
	$(call say,LINT,Go)
	$(Q)go mod tidy -diff
	$(Q)$(GOLANGCI) run ./...
	$(call say,LINT,BPF C)
	$(Q)$(CLANG_FORMAT) --dry-run --Werror $(BPF_C)
	$(call say,LINT,shell)
	$(Q)shellcheck .ci/*

.PHONY: fmt
fmt: ## format Go and BPF C
	$(Q).ci/need $(CLANG_FORMAT)=clang-format-19
	$(Q)$(GOLANGCI) fmt ./...
	$(Q)$(CLANG_FORMAT) -i $(BPF_C)

.PHONY: install
install: $(TOOLS:%=bin/%) ## install bin/, man pages and completions (PREFIX=/usr/local, DESTDIR=)
	$(call say,INSTALL,$(TOOLS:%=$(SBIN)/%))
	$(Q)install -d '$(SBIN)' '$(SHARE)/man/man8' '$(SHARE)/bash-completion/completions' \
		'$(SHARE)/zsh/site-functions' '$(SHARE)/fish/vendor_completions.d'
	$(Q)for tool in $(TOOLS); do \
		install -m 755 "bin/$$tool" '$(SBIN)'; \
		"bin/$$tool" --man >'$(SHARE)'/man/man8/"$$tool.8"; \
		"bin/$$tool" --completion bash >'$(SHARE)'/bash-completion/completions/"$$tool"; \
		"bin/$$tool" --completion zsh >'$(SHARE)'/zsh/site-functions/"_$$tool"; \
		"bin/$$tool" --completion fish >'$(SHARE)'/fish/vendor_completions.d/"$$tool.fish"; \
	done

.PHONY: clean
clean: ## remove bin/ and dist/
	$(Q)rm -rf bin dist

.PHONY: help
help: ## this list
	$(Q)awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-16s %s\n", $$1, $$2 }' Makefile
