#!/usr/bin/env bash
# Sourced by launch.sh and install.sh. GitHub runs inside the same environment: what could speak in its name stays out of
# everything but `publish.sh`, of pip and of a build of a package or of an image too.
withhold_tokens() {
  unset GITHUB_TOKEN GH_TOKEN INPUT_TOKEN CUDA_MATRIX_TOKEN ACTIONS_RUNTIME_TOKEN ACTIONS_RESULTS_URL \
    ACTIONS_ID_TOKEN_REQUEST_TOKEN ACTIONS_ID_TOKEN_REQUEST_URL
}
