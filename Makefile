# SPDX-License-Identifier: GPL-2.0
#
# Two halves: the module for a kernel of yours (modules, modules_install, clean), as for any
# out-of-tree module; and the workshop, which builds and boots a whole s390x host (run, test, vm).

.DEFAULT_GOAL := modules

# --- The module, for the kernel whose build directory is KDIR.

KDIR ?= /lib/modules/$(shell uname -r)/build
export ARCH := s390
# As the kernel was built: with clang, or with GCC.
LLVM ?= $(if $(shell grep -s '^CONFIG_CC_IS_CLANG=y' $(KDIR)/.config),1)

kbuild = $(MAKE) -C $(KDIR) M=$(CURDIR) $(if $(LLVM),LLVM=$(LLVM))

modules: ## build zpci-vfio-pci.ko for the kernel in KDIR
	@scripts/doctor --build '$(KDIR)'
	+$(kbuild) modules

modules_install: ## install it (INSTALL_MOD_PATH= for another root)
	+$(kbuild) modules_install

clean: ## remove what a build has left in this directory
	+$(if $(wildcard $(KDIR)/Makefile),$(kbuild) clean,git clean -fdXq .)

doctor: ## check what the build and the workshop need, and say how to get it
	@scripts/doctor '$(KDIR)'

# --- What packages contain, below DESTDIR; see scripts/package.

VERSION ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' tools/zpci-io/Cargo.toml)
prefix ?= /usr
docdir ?= $(prefix)/share/doc/zpci-io
zshdir ?= $(prefix)/share/zsh/vendor-completions
ZPCI_IO ?= tools/target/release/zpci-io

source = $(prefix)/src/zpci-vfio-pci-$(VERSION)

install-source: ## install the module's source for DKMS [DESTDIR=]
	install -d $(DESTDIR)$(source)
	cp -r --parents Kbuild Makefile drivers include rust scripts/doctor \
		scripts/package/headers scripts/package/kernel.config $(DESTDIR)$(source)
	sed 's/#MODULE_VERSION#/$(VERSION)/' scripts/package/dkms.conf >$(DESTDIR)$(source)/dkms.conf

install-zpci-io: ## install the tool, what belongs to it, and examples [DESTDIR= ZPCI_IO=program]
	install -D $(ZPCI_IO) $(DESTDIR)$(prefix)/sbin/zpci-io
	install -D -m 644 -t $(DESTDIR)$(prefix)/share/man/man8 tools/zpci-io/docs/*.8
	install -D -m 644 tools/zpci-io/docs/zpci-io.bash \
		$(DESTDIR)$(prefix)/share/bash-completion/completions/zpci-io
	install -D -m 644 -t $(DESTDIR)$(prefix)/share/fish/vendor_completions.d tools/zpci-io/docs/*.fish
	install -D -m 644 -t $(DESTDIR)$(zshdir) tools/zpci-io/docs/_zpci-io
	install -D -m 644 -t $(DESTDIR)$(docdir)/examples tools/zpci-io/dist/*

# --- The workshop.

# Shell commands come here as they were typed, `$` included.
override RUN := $(value RUN)
FLAVOUR ?= release
export RUN FILES FLAVOUR QEMU QEMU_ARGS SMP MEM TIMEOUT LONG KSRC KVER KCC QVER

kernels := scripts/toolchain setup && scripts/toolchain kernel
newer := $(if $(KVER),$(kernels) '$(KVER)' && )$(if $(QVER),scripts/toolchain setup && scripts/toolchain qemu '$(QVER)' && )
runner := $(newer)scripts/toolchain run cargo run -q --release --locked --manifest-path tools/Cargo.toml -p runner --

run: ## build everything, boot an s390x host, and show the region at work
	@$(runner) run

run-picture: ## put a picture of that into README: what it prints today
	@$(runner) run-picture

test: ## run the tests; T='host region' selects; LONG=1 also the long ones (hours)
	@$(runner) test $(T)

test-lifecycle: ## what the host does to a function in use; LONG=1 does it a thousand times, for hours
	@$(runner) test lifecycle

test-cycles: ## take a function away and give it back, hundreds of times: does the kernel keep memory?
	@$(runner) test cycles

test-mutants: ## put defects into the driver, one by one: each must be found (T='name' selects)
	@$(runner) mutants $(T)

test-race: ## some of them, on a kernel that finds data races and undefined behaviour
	@$(runner) test $(or $(T),race-region race-lifecycle race-guest)

matrix: ## all kernels and compilers: each builds, boots and passes (1 hour); KVER=7.3 KCC=gcc selects
	@$(kernels) || echo 'What is not there is skipped.'
	@$(runner) matrix

test-qemu: ## of these, those about the patched QEMU: itself, functions that fail, ISM, guests
	@$(runner) test emulator ism bare fuzz guest

upstream-series: ## patches for the kernel (KSRC=), as they would be sent
	@$(runner) upstream-series

test-upstream: ## the kernel that they make: form, each patch builds, it boots and passes (1 hour)
	@$(runner) test-upstream

demo-ism: ## show a guest of the booted s390x host that has an ISM function
	@$(runner) demo-ism

bench: ## count the instructions of an access, by this driver, by the same in C, and by others
	@$(runner) bench

bench-save: ## put these figures into the documentation; commit before
	@$(runner) bench-save

bench-check: ## compare them with those in the documentation: fails if one is 2 % above
	@$(runner) bench-check

fuzz: ## look for requests that the driver judges wrongly, with libFuzzer (TIME=60 seconds)
	@tools/testing/request/explore fuzz $(TIME)

coverage: ## say which lines of request.rs the tests of this machine do not reach
	@tools/testing/request/explore coverage

test-mutants-host: ## let a tool change request.rs and the client: the tests of this machine must find it
	@tools/testing/request/explore mutants

model-check: ## check the locking scheme with spin (THREADS=2)
	@scripts/toolchain run tools/testing/model/check $(THREADS)

qemu: ## build the patched QEMU of tools/qemu, for this machine and for the s390x host
	@$(runner) qemu

packages: ## make packages (.deb, .rpm) of the module's source and of the tool, in packages/
	@$(runner) packages

hardware-kit: ## make one archive of them, with a script that tries a function of a mainframe
	@$(runner) hardware-kit

kernel-packages: ## make packages of an s390x kernel with Rust, its headers, and the module
	@$(runner) kernel-packages

qemu-series: ## write the patches of tools/qemu as they are to be sent, with a cover letter, to OUT= [QVER=11.1]
	@$(newer)scripts/toolchain run tools/qemu/export '$(or $(OUT),$(error give a directory: OUT=...))' $(QVER)

test-qemu-series: ## QEMU after each of them: it builds, and in the end passes tests of its own (1 hour) [QVER=11.1]
	@$(runner) test-qemu-series

vm: ## run RUN='command' in a booted s390x host [FILES= FLAVOUR= KVER= KCC= QEMU= QEMU_ARGS= SMP= MEM=]
	@$(runner) vm

shell: ## an interactive shell in a booted s390x host
	@$(runner) shell

tool-docs: ## write man pages and completions of zpci-io anew, from its command line
	@scripts/toolchain run env UPDATE=1 cargo test -q --locked --manifest-path tools/Cargo.toml \
		-p zpci-io man_pages

vm-paths: ## print where kernel image, modules and cross compiler are
	@$(runner) vm-paths

# --- Tools.

fmt-check: ## rustfmt, with the kernel's configuration
	@scripts/toolchain run sh -c "git ls-files '*.rs' | xargs rustfmt --check"

clippy: ## clippy on the module and on user space; warnings are errors
	@$(runner) clippy

rustdoc: ## documentation of the module's crates
	@$(runner) rustdoc

htmldocs: ## Documentation as web pages, in Documentation/output/html
	@scripts/toolchain run python3 -m sphinx -q -E -W --keep-going Documentation Documentation/output/html
	@echo Documentation/output/html/index.html

rust-analyzer: ## rust-project.json for the module's crates
	@$(runner) rust-analyzer

help: ## this list
	@awk -F ':.*## ' '/^[a-z_-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo 'Start with: make run'

# All that are in the list.
.PHONY: $(shell sed -nE 's/^([a-z_-]+):.*## .*/\1/p' $(firstword $(MAKEFILE_LIST)))
