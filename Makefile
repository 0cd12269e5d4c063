# Every target is one script; read those.
.PHONY: setup demo up test test-slow test-matrix fuzz fuzz-parsers real-data gallery check gpu-check lock compose-env compose-test

setup:
	@scripts/setup

demo:
	@scripts/demo

up:
	@scripts/serve

test:
	@scripts/test

test-slow:
	@scripts/test-slow

test-matrix: test-slow

fuzz:
	@scripts/fuzz

fuzz-parsers:
	@scripts/fuzz-parsers

real-data:
	@scripts/real-data

check:
	@scripts/check

gpu-check:
	@scripts/gpu-check

lock:
	@scripts/lock

compose-env:
	@scripts/compose-env

compose-test:
	@scripts/compose-test

gallery:
	@scripts/gallery
