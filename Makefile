# Everything a developer or an operator types. `make` alone lists it.
#
# Variables:  PYTHON=python3.12   the interpreter that .venv is made from (3.11 or newer)
#             ARGS='-k hold -x'   more arguments for pytest, or for the benchmark
#             WORKERS=2           test processes; 0 runs the tests in this one
#             PROVIDERS=simulated for `make run`: live jobs go to the providers' own APIs, played on this machine
#             SOAK=10 SEED=4711   for `make test-faults`: minutes that each storm rages, and the chance of a run before
#             UPGRADE=--upgrade   lets `make lock` move indirect dependencies to newer versions

V := .venv
PY := $(V)/bin/python
WORKERS ?= 2
GEN := services/gen
PROTOS := $(sort $(wildcard protos/*/v1/*.proto))
BASELINE := protos/baseline.binpb
CHECKS := check-types check-style check-imports check-protos check-stubs check-spelling

# A company's proxy signs with a certificate that only the system knows.
export UV_SYSTEM_CERTS ?= 1

# Some containers forbid Python to keep bytecode: then every process of a house compiles all of services anew, which
# doubles the time of its start and that of every test with a house in it.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.ONESHELL:
.SHELLFLAGS := -euc
.DELETE_ON_ERROR:
.PHONY: help setup run test test-alone test-fast test-faults soak check $(CHECKS) gen proto-baseline fmt verify-ledger bench lock clean FORCE

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(V)/.run-ready ## Build .venv with everything `make run` needs, and stop there
	@echo "Ready. Start with: make run"

run: $(V)/.run-ready ## Start the whole house; Ctrl-C stops it (PROVIDERS=simulated: live jobs as with real providers)
	@export ATELIER_PROVIDERS="$(or $(PROVIDERS),$${ATELIER_PROVIDERS:-sandbox})"
	exec $(PY) -m services

test: $(V)/.dev-ready ## Run every test, of the faults a slice (ARGS= goes to pytest)
	@exec $(PY) -m pytest -n $(WORKERS) --dist loadfile -m "not faults_full" $(ARGS)

test-alone: $(V)/.dev-ready ## Run what failed last once more, one test at a time and with the machine to itself
	@exec $(PY) -m pytest -n 0 -v --last-failed --last-failed-no-failures none $(ARGS)

test-fast: $(V)/.dev-ready ## Run the tests of rules and of the tree only: seconds
	@exec $(PY) -m pytest tests/unit tests/tidy $(ARGS)

test-faults: $(V)/.dev-ready ## Kill, cut and freeze everything everywhere, on both engines (SOAK=minutes, SEED=)
	@export SEED="$(or $(SEED),$$(od -An -N4 -tu4 /dev/urandom | tr -d ' '))" SOAK="$(or $(SOAK),0)"
	echo "SEED=$$SEED SOAK=$$SOAK: give the same SEED for the same storms."
	exec $(PY) -m pytest tests/faults -n $(WORKERS) --dist loadfile $(ARGS)

soak: $(V)/.dev-ready ## Play 20,000 jobs on the simulated providers while everything breaks (ARGS='--jobs 500 --seed 7')
	@exec $(PY) -m tests.soak $(ARGS)

check: $(V)/.dev-ready ## Style, types, boundaries, protos, stubs and spelling, all at once
	@$(MAKE) -s -k -j "$$(getconf _NPROCESSORS_ONLN)" --output-sync=target --no-print-directory $(CHECKS)
	echo "All checks pass."

gen: $(V)/.dev-ready ## Write services/gen from protos/, and the configuration page from the settings
	@$(call generate)
	rm -rf $(GEN)
	mv "$$made/$(GEN)" $(GEN)
	$(PY) -m tests.tidy.configuration_page
	echo "$(GEN) and docs/CONFIGURATION.md are up to date."

proto-baseline: $(V)/.dev-ready ## At a release: record the protos that later changes must stay compatible with
	@$(V)/bin/buf build --exclude-source-info -o $(BASELINE)
	echo "$(BASELINE) now holds today's protos."

fmt: $(V)/.dev-ready ## Format Python and protos, and mend what can be mended by itself
	@$(V)/bin/ruff check --fix-only --quiet
	$(V)/bin/ruff format
	$(V)/bin/buf format -w

verify-ledger: $(V)/.run-ready ## Check the whole journal of the house in $ATELIER_VAR (var), running or stopped
	@var="$${ATELIER_VAR:-var}"
	export ATELIER_BILLING_DATABASE_URL="$${ATELIER_BILLING_DATABASE_URL:-sqlite:///$$var/billing/billing.db}"
	export ATELIER_BILLING_KEY_PEPPER_FILE="$${ATELIER_BILLING_KEY_PEPPER_FILE:-$$var/keys/api_key_pepper}"
	exec $(PY) -m services.billing verify-ledger $(ARGS)

bench: $(V)/.dev-ready ## Measure, as ratios to a baseline measured in the same run
	@exec $(PY) -m tests.bench $(ARGS)

lock: $(V)/.uv-ready ## Compile requirements/*.in into *.lock (UPGRADE=--upgrade for newer versions)
	@for list in setup run sandbox dev; do
		$(V)/bin/uv pip compile --quiet --python-version 3.11 --universal --generate-hashes $(UPGRADE) \
			--custom-compile-command 'make lock' -o requirements/$$list.lock requirements/$$list.in
	done
	echo "Locked. Read the difference before you commit it."

clean: ## Remove .venv and every cache; var/ (your data) stays
	@rm -rf $(V) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find services tests -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- the checks behind `make check`; each can be run alone ----

check-types: $(V)/.dev-ready
	@$(PY) -m mypy --no-error-summary
	echo "ok  types"

check-style: $(V)/.dev-ready
	@$(V)/bin/ruff check --quiet --output-format concise
	$(V)/bin/ruff format --check --quiet --output-format concise || { echo "Not formatted: run 'make fmt'." >&2; exit 1; }
	echo "ok  style"

check-imports: $(V)/.dev-ready
	@# Called through its function: a console script would remember the folder .venv was made in.
	$(PY) -c 'from importlinter.cli import lint_imports_command as main; main()' > "$(V)/.imports.log" \
		|| { cat "$(V)/.imports.log" >&2; exit 1; }
	echo "ok  imports"

check-protos: $(V)/.dev-ready
	@$(V)/bin/buf lint
	$(V)/bin/buf format --diff --exit-code
	$(V)/bin/buf breaking --against $(BASELINE)
	echo "ok  protos"

check-stubs: $(V)/.dev-ready
	@$(call generate)
	diff -r --exclude=__pycache__ $(GEN) "$$made/$(GEN)" \
		|| { echo "$(GEN) is not what protos/ gives: run 'make gen'." >&2; exit 1; }
	echo "ok  stubs"

check-spelling: $(V)/.dev-ready
	@$(PY) -m codespell_lib
	echo "ok  spelling"

# Leaves fresh stubs in "$$made/services/gen", a folder that is gone when the recipe ends. The mapping makes
# every proto's path start with services/gen, which is what makes the generated imports absolute; without an
# __init__.py at every level import-linter would not see these packages and pass silently.
define generate
made=$$(mktemp -d ./.gen-XXXXXX)
trap 'rm -rf "$$made"' EXIT
$(PY) -m grpc_tools.protoc -I$(GEN)=protos \
	--plugin=protoc-gen-mypy=$(V)/bin/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(V)/bin/protoc-gen-mypy_grpc \
	--python_out="$$made" --grpc_python_out="$$made" --mypy_out=quiet:"$$made" --mypy_grpc_out=quiet:"$$made" $(PROTOS)
find "$$made/$(GEN)" -type d | while read -r folder; do
	echo '"""Generated from protos/; never edited."""' > "$$folder/__init__.py"
done
endef

# ---- .venv, in three layers; a stamp newer than its locks means that the layer needs no work ----

# Sets $$python to an interpreter that is new enough, or ends with one sentence.
define find_python
python=
for candidate in $(or $(PYTHON),python3.11 python3); do
	if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi
done
if [ -z "$$python" ]; then
	echo "Atelier needs Python 3.11 or newer, and $(if $(PYTHON),'$(PYTHON)' is not,this machine has none): install it, or name another with 'make PYTHON=/path/to/python'." >&2
	exit 1
fi
endef

# Installs a lock by hash: with uv, and where uv is missing or cannot reach its packages, with pip. Compiled at
# once: four processes start together, and each would compile hundreds of modules where bytecode is not written.
define install
if ! { [ -x $(V)/bin/uv ] && $(V)/bin/uv pip install --quiet --compile-bytecode --python $(PY) --require-hashes -r requirements/$(1).lock; }; then
	$(find_python)
	echo "Installing $(1).lock with pip instead; this takes a minute."
	"$$python" -m pip --python $(PY) install -qq --disable-pip-version-check --require-hashes -r requirements/$(1).lock
fi
endef

# A .venv whose interpreter is gone (Python upgraded, folder copied elsewhere) is made again.
$(V)/.uv-ready: requirements/setup.lock $(if $(wildcard $(PY)),,FORCE)
	@$(find_python)
	if [ ! -w . ] || { [ -e $(V) ] && [ ! -w $(V) ]; }; then
		echo "Atelier cannot write in $(CURDIR): give yourself the right to, or move the folder." >&2
		exit 1
	fi
	echo "Setting up $(V) with $$("$$python" --version)."
	# Without pip of its own: Debian ships venv and ensurepip apart, and this needs neither.
	if [ ! -x $(PY) ]; then "$$python" -m venv --without-pip --clear $(V); fi
	if ! "$$python" -m pip --version >/dev/null 2>&1; then
		echo "Atelier needs pip once, to fetch its installer: install python3-pip." >&2
		exit 1
	fi
	"$$python" -m pip --python $(PY) install -qq --disable-pip-version-check --require-hashes -r requirements/setup.lock \
		|| echo "uv could not be had; pip does its work, more slowly."
	touch $@

$(V)/.run-ready: $(V)/.uv-ready requirements/run.lock requirements/sandbox.lock
	@$(call install,run)
	$(call install,sandbox)
	touch $@

$(V)/.dev-ready: $(V)/.run-ready requirements/dev.lock
	@$(call install,dev)
	touch $@
