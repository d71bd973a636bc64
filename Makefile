# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN    := .venv/bin
EXTRAS := dev,train,label,sam,bulk,ray,formats,serve,export,notebooks
UV     := PYTHONPATH=.venv/.uv $(PYTHON) -m uv

ROOT   := $(shell id -u)

.PHONY: install chromium demo docs notebooks dist sbom test normal-tests test-slow test-floor lint format clean

install: .venv/.installed

# uv comes by pip into a folder of its own, so that neither the system's Python nor the venv module is touched.
.venv/.installed: setup.py constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m pip install --quiet --disable-pip-version-check --target .uv-boot uv
	@test -x $(BIN)/python || PYTHONPATH=.uv-boot $(PYTHON) -m uv venv --quiet --python $(PYTHON) .venv
	@test -d .venv/.uv || mv .uv-boot .venv/.uv
	$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[$(EXTRAS),videomt]'
	@touch $@

demo: install
	$(BIN)/entitysam demo -o out/demo

# The site: build/site/docs/index.html. A broken link or a page that no other page names is an error.
docs: install
	$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[$(EXTRAS),videomt,docs]'
	$(BIN)/python -m sphinx -W --keep-going -q -b html -c docs . build/site

# Executes the notebooks and keeps their outputs.
notebooks: install
	PYTHONWARNINGS=ignore $(BIN)/jupyter execute --inplace docs/notebooks/*.ipynb
	$(BIN)/ruff format --quiet docs/notebooks

# What is published: wheel and source distribution, checked.
dist: install
	rm -rf build/lib dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*.whl dist/*.tar.gz

# Every package that the wheel brings, with version and licence, from an environment with nothing else.
sbom: dist
	rm -rf build/sbom
	$(UV) venv --quiet --python $(PYTHON) build/sbom
	$(UV) pip install --quiet --python build/sbom/bin/python "$$(ls dist/*.whl)$(if $(SBOM_EXTRAS),[$(SBOM_EXTRAS)])"
	$(UV) tool run --quiet --from cyclonedx-bom cyclonedx-py environment --output-reproducible --of JSON -o dist/sbom.json build/sbom/bin/python
	$(UV) tool run --quiet pip-licenses --python build/sbom/bin/python --with-urls --format markdown --output-file dist/licences.md

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The browser tests need Chromium. Root on Debian gets it from there; elsewhere they skip without it, and say so.
chromium:
	@command -v chromium chromium-browser google-chrome >/dev/null || ! command -v apt-get >/dev/null || test "$(ROOT)" != 0 || \
		{ echo "installing Chromium for the browser tests"; apt-get -qq update && apt-get -qq install -y chromium >/dev/null; } || \
		echo "Chromium could not be installed: the browser tests skip"

# Linters and tests run side by side, as the type checker uses one core only.
test: install
	@$(MAKE) --no-print-directory --jobs 2 lint normal-tests

normal-tests: install chromium
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m 'not slow' $(PYTEST_ARGS)

test-slow: install chromium
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

# The same tests with the oldest versions that setup.py allows.
test-floor: .venv-floor/.installed
	.venv-floor/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m 'not slow' $(PYTEST_ARGS)

.venv-floor/.installed: setup.py | install
	@test -x .venv-floor/bin/python || $(UV) venv --quiet --python $(PYTHON) .venv-floor
	$(UV) pip install --quiet --python .venv-floor/bin/python --resolution lowest-direct --editable '.[$(EXTRAS)]'
	@touch $@

format: install
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

clean:
	rm -rf .venv .venv-floor .uv-boot build dist *.egg-info out
