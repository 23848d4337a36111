#!/bin/sh
# What `make check` runs. Each tool speaks only when it has something to say; all run, then the exit code tells.
status=0
run() {
  name=$1
  shift
  if "$@" >/tmp/cuda-matrix-check.$$ 2>&1; then
    echo "ok       $name"
  else
    echo "FAILED   $name"
    cat /tmp/cuda-matrix-check.$$
    status=1
  fi
  rm -f /tmp/cuda-matrix-check.$$
}
optional() {
  if command -v "$2" >/dev/null 2>&1; then
    run "$@"
  elif [ "${CI:-}" = true ]; then
    echo "FAILED   $1: $2 is not installed, and CI must not skip it"
    status=1
  else
    echo "skipped  $1: $2 is not installed here"
  fi
}

run "ruff (rules)" ruff check src tests bench tools
run "ruff (format)" ruff format --check src tests bench tools
run "mypy --strict" mypy
run "import-linter" lint-imports
run "lock files" python tools/check_locks.py
workflows="workflows/*.yml .github/workflows/*.yml src/cuda_matrix/templates/starter/workflows/*.yml"
parser=${CUDA_MATRIX_WORKFLOW_PARSER:-/var/cache/cuda-matrix-ci/workflow-parser}
# shellcheck disable=SC2086  # the globs are meant
{
  run "workflow schema" check-jsonschema --builtin-schema vendor.github-workflows $workflows
  run "action schema" check-jsonschema --builtin-schema vendor.github-actions action.yml
  run "zizmor" zizmor --offline --quiet --config .github/zizmor.yml --persona pedantic action.yml $workflows
  optional "actionlint" actionlint -no-color $workflows
  if [ -d "$parser/node_modules" ]; then
    run "GitHub's workflow parser" node tools/workflow_parser.mjs "$parser" action.yml $workflows
  else
    optional "GitHub's workflow parser (npm install --prefix $parser @actions/workflow-parser@0.3.61)" /missing
  fi
}
optional "shellcheck" shellcheck --external-sources action/*.sh tools/*.sh src/cuda_matrix/payload/start.sh src/cuda_matrix/templates/entrypoint.sh .ci/run tests/docker/*.sh tests/docker/lab/*.sh
exit $status
