#!/bin/sh
# Runs one step of the Makefile's installation: sh tools/installing.sh PROGRAM ARGUMENT... Two ends get one line of ours
# in the place of many: an interrupt, and a package index that nobody reaches. All else is told in the program's words.
set -u
said=$(mktemp) || exit 2
trap 'rm -f "$said"' EXIT
trap 'echo "make: interrupted while installing; run it again" >&2; exit 130' INT TERM
if "$@" 2> "$said"; then
  cat "$said" >&2
  exit 0
else
  status=$?
fi
if grep -q 'connection broken by' "$said" && grep -qE 'No matching distribution|Could not (find a version|install packages)' "$said"; then
  why=$(grep -oE "Name or service not known|Temporary failure in name resolution|No address associated with hostname|Connection refused|Network is unreachable|timed out" "$said" | head -n 1)
  echo "make: no package index answers${why:+ ($why)}: the packages need a network once, or PIP_INDEX_URL names a mirror" >&2
  exit "$status"
fi
cat "$said" >&2
exit "$status"
